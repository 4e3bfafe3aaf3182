"""Files that the benchmarks make: the load generator, certificates, configurations; and commands that make them."""
import os
import shutil
import socket
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
LIBRARIES = {"relay": ("-lssl", "-lcrypto")}


def run(*command, check=True):
    """Output of a command that ends; RuntimeError with that output if it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=60)
    if check and done.returncode:
        raise RuntimeError("%s: %s" % (" ".join(command[:4]), done.stdout.strip()))
    return done.stdout


def write(path, value):
    with open(path, "w") as f:
        f.write(str(value))


def compiler():
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def free_ports(count):
    """Ports of the loopback address that nothing listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


class Work:
    """A folder of such files."""

    def __init__(self, folder):
        self.folder = folder

    def path(self, name):
        return os.path.join(self.folder, name)

    def build_tools(self, *names):
        for name in names:
            run(compiler(), "-O2", "-o", self.path(name), os.path.join(HERE, "tools", name + ".c"), *LIBRARIES.get(name, ()))

    def certificates(self, key):
        """A CA with a client's and a server's certificate, and a client's certificate of another CA ("rogue")."""
        curve = ["-newkey", "rsa:2048"] if key == "rsa" else ["-newkey", "ec", "-pkeyopt",
                                                              "ec_paramgen_curve:prime256v1"]
        for ca in ("ca", "rogue-ca"):
            run("openssl", "req", "-x509", *curve, "-nodes", "-days", "30", "-subj", "/O=cluster.local",
                "-keyout", self.path(ca + ".key"), "-out", self.path(ca + ".crt"))
        for name, ca, account, dns in (("client", "ca", "client", "client"), ("rogue", "rogue-ca", "client", "client"),
                                       ("server", "ca", "server", "app.default.svc.cluster.local")):
            with open(self.path(name + ".ext"), "w") as f:
                f.write("subjectAltName=URI:spiffe://cluster.local/ns/default/sa/%s,DNS:%s\n" % (account, dns))
                f.write("extendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=critical,CA:false\n")
                f.write("keyUsage=critical,digitalSignature,keyEncipherment\n")
            run("openssl", "req", *curve, "-nodes", "-subj", "/CN=" + dns,
                "-keyout", self.path(name + ".key"), "-out", self.path(name + ".csr"))
            run("openssl", "x509", "-req", "-in", self.path(name + ".csr"), "-CA", self.path(ca + ".crt"),
                "-CAkey", self.path(ca + ".key"), "-CAcreateserial", "-days", "30",
                "-extfile", self.path(name + ".ext"), "-out", self.path(name + ".crt"))
            with open(self.path(name + ".pem"), "w") as pem:
                for ending in ("crt", "key"):
                    with open(self.path("%s.%s" % (name, ending))) as f:
                        pem.write(f.read())
            for ending in ("crt", "key", "pem"):
                os.chmod(self.path("%s.%s" % (name, ending)), 0o644)
        os.chmod(self.path("ca.crt"), 0o644)
