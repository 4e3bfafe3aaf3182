//! Leaving the mesh as it was found.

use super::mesh::Mesh;

/// Runs a `weft` command when it goes.
#[derive(Debug)]
#[must_use = "what was done is undone at once where nothing holds this"]
pub(crate) struct Undo<'a> {
    mesh: &'a Mesh,
    words: Vec<String>,
    input: String,
}

impl<'a> Undo<'a> {
    pub(crate) fn new(mesh: &'a Mesh, words: &[&str], input: &str) -> Self {
        let words = words.iter().map(|&word| word.to_owned()).collect();
        Self {
            mesh,
            words,
            input: input.to_owned(),
        }
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let outcome = self.mesh.weft_with_input(&words, &self.input);
        if std::thread::panicking() {
            return;
        }
        outcome.ok();
        self.mesh.until_in_force();
    }
}
