#!/usr/bin/env bash
# Fuzzes targets, all of them where none is named: each for FUZZ_SECONDS, FUZZ_JOBS at a time.
#
#   fuzz/run.sh [TARGET...]            fuzz; what is found is in the folder that is printed, and the exit status says so
#   fuzz/run.sh --keep TARGET...       put what covers most of a target's working corpus into fuzz/corpus
set -euo pipefail
cd "$(dirname "$0")"
seconds=${FUZZ_SECONDS:-3600}
jobs=${FUZZ_JOBS:-$(nproc)}
# As many as are kept of a target: replayed by every run of the tests.
most=40
triple=$(rustc -vV | sed -n 's/^host: //p')
folder=$(cd .. && mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)/fuzz

# The coverage that libFuzzer is guided by; `--target` keeps it out of build scripts.
export CARGO_TARGET_DIR=$folder/build
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" \
	cargo build --release --locked --target "$triple"
program=$folder/build/$triple/release/weft-fuzz

# Names one of the targets, feeds it, and says in a line what came of it.
fuzz() {
	local target=$1 log=$folder/$1.log
	mkdir -p "$folder/corpus/$target" "$folder/found/$target"
	if WEFT_FUZZ_TARGET=$target nice "$program" "$folder/corpus/$target" "corpus/$target" \
		-max_total_time="$seconds" -max_len=16384 -len_control=100 -rss_limit_mb=1024 -timeout=25 -print_final_stats=1 \
		-artifact_prefix="$folder/found/$target/" >"$log" 2>&1; then
		local runs coverage
		runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
		coverage=$(grep -ao 'cov: [0-9]*' "$log" | tail -n 1)
		echo "$target: $runs runs, $coverage, nothing found"
	else
		echo "$target: FOUND something: $log, and the input in $folder/found/$target"
		return 1
	fi
}

keep() {
	local target=$1 merged
	merged=$(mktemp -d)
	WEFT_FUZZ_TARGET=$target "$program" -set_cover_merge=1 "$merged" "corpus/$target" "$folder/corpus/$target" 2>/dev/null
	find "$merged" -type f -size -16k -printf '%s %p\n' | sort -rn | head -n "$most" | while read -r _ file; do
		cp -n "$file" "corpus/$target/$(basename "$file" | cut -c1-16)"
	done
	rm -r "$merged"
}

export -f fuzz
export seconds folder program
if [ "${1:-}" = --keep ]; then
	shift
	for target in "$@"; do keep "$target"; done
	exit
fi
if [ $# = 0 ]; then
	mapfile -t all < <(ls corpus)
	set -- "${all[@]}"
fi
printf '%s\n' "$@" | xargs -P "$jobs" -I {} bash -c 'fuzz {}'
