#!/usr/bin/env python3
"""What a request costs weft, in instructions, allocations and system calls: figures that hold on a busy machine.

  count.py                       count, and compare with counts.json; exit status 1 where something costs more
  count.py --record              count, and write counts.json
  count.py -s h1,h2 --keep       some scenarios; the profiles stay, for callgrind_annotate

A proxy with one worker runs under callgrind, a client asks one request after another over one connection. After the
warm-up come two stretches of different length; the difference is free of what is done once per stretch, and of timers.
Needs valgrind, a C compiler and openssl; no root. The proxy is WEFT_BIN. See README.md.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True

import clients              # noqa: E402
import files                # noqa: E402
import proxies              # noqa: E402
import scenarios as sc      # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
RECORD = os.path.join(HERE, "counts.json")
FORMAT = 1                          # of counts.json
WARM, SHORT, LONG = 150, 50, 350    # requests
TOLERANCE = 0.05                    # share by which a figure may grow
SLACK = {"instructions": 0, "allocations": 0.3, "syscalls": 0.1}    # what it may grow by in any case
LIMIT = 300                         # seconds that anything of a scenario may take
ALLOCATORS = re.compile(r"(malloc|calloc|realloc|posix_memalign|aligned_alloc|memalign)('\d+)?$")

# Scenario: the template, the flags of each proxy of the chain, which of them is counted, the back end's port, the client.
COUNTED = {
    "h1": ("http", ((),), 0, sc.HTTP, clients.Http1),
    "h1-post": ("http", ((),), 0, sc.HTTP, clients.Http1Post),
    "h2": ("http", (("H2",),), 0, sc.H2, clients.Http2),
    "tcp": ("tcp", (("TCP",),), 0, sc.ECHO, clients.PingPong),
    "h1-mtls-client": ("http", sc.pair(), 0, sc.HTTP, clients.Http1),
    "h1-mtls-server": ("http", sc.pair(), 1, sc.HTTP, clients.Http1),
    "h1-all": ("http", (("ISTIO",),), 0, sc.HTTP, clients.Http1),
}


class Failed(Exception):
    """A count that could not be made; the text says why."""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-s", "--scenarios", default=",".join(COUNTED), help="names, separated by commas")
    parser.add_argument("--record", action="store_true", help="write counts.json instead of comparing with it")
    parser.add_argument("--keep", action="store_true", help="keep the profiles, and say where they are")
    parser.add_argument("-o", "--out", metavar="FILE", help="write what was counted as JSON")
    args = parser.parse_args()
    args.scenarios = args.scenarios.split(",")
    for name in args.scenarios:
        if name not in COUNTED:
            parser.error("no scenario %s; there are %s" % (name, ", ".join(COUNTED)))
    return args


class Chain:
    """Back end and proxies of one scenario, on ports of their own."""

    def __init__(self, work, binary, name):
        self.work, self.binary, self.name = work, binary, name
        self.template, self.flags, self.counted, backend_port, self.client = COUNTED[name]
        self.processes = []
        ports = files.free_ports(len(self.flags) + 1)
        self.backend_port, self.ports = ports[-1], ports[:-1]
        self.kind = {sc.HTTP: "--http", sc.H2: "--h2", sc.ECHO: "--echo"}[backend_port]

    def __enter__(self):
        try:
            self.spawn([self.work.path("wbtool"), "backend", "--bind", "127.0.0.1", self.kind, str(self.backend_port)],
                       self.backend_port)
            for k in reversed(range(len(self.flags))):
                command = [self.binary, "proxy", "-c", self.configuration(k), "--concurrency", "1"]
                self.spawn(self.callgrind() + command if k == self.counted else command, self.ports[k])
                if k == self.counted:
                    self.proxy = self.processes[-1]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.kill()
            process.wait(10)

    def callgrind(self):
        return ["valgrind", "--tool=callgrind", "--collect-systime=yes", "--quiet",
                "--callgrind-out-file=" + self.profile()]

    def profile(self):
        return self.work.path("callgrind-%s" % self.name)

    def spawn(self, command, port):
        with open(self.work.path("%s-%d.log" % (self.name, len(self.processes))), "wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.processes.append(process)
        end = time.monotonic() + LIMIT
        while not clients.answers(port):
            if process.poll() is not None or time.monotonic() > end:
                with open(log.name, errors="replace") as said:
                    raise Failed("%s: %s does not listen: %s" % (self.name, command[0], said.read()[-600:].strip()))
            time.sleep(0.05)

    def configuration(self, k):
        up = self.ports[k + 1] if k + 1 < len(self.ports) else self.backend_port
        told = dict(LISTEN_IP="127.0.0.1", LISTEN_PORT=str(self.ports[k]), UP_IP="127.0.0.1", UP_PORT=str(up),
                    WORK=self.work.folder, INSTANCE="%s-%d" % (self.name, k), CA=self.work.path("ca.crt"),
                    COLLECTOR_IP="127.0.0.1", COLLECTOR_PORT=str(self.backend_port), N_CLUSTERS="0", N_ENDPOINTS="0",
                    CONNECT_TIMEOUT="%ds" % LIMIT)
        for owner in ("client", "server"):
            for what, ending in (("CERT", "crt"), ("KEY", "key")):
                told["%s_%s" % (owner.upper(), what)] = self.work.path("%s.%s" % (owner, ending))
        with open(os.path.join(HERE, "conf", "envoy", self.template + ".yaml")) as f:
            text = proxies.render(f.read(), told, set(self.flags[k]))
        path = self.work.path("%s-%d.yaml" % (self.name, k))
        files.write(path, text)
        return path

    def dump(self, number):
        """Has callgrind write what it has counted since the last time; returns that."""
        before = set(self.dumps())
        subprocess.run(["callgrind_control", "--dump=%d" % number, str(self.proxy.pid)], check=True, timeout=LIMIT,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            for name in set(self.dumps()) - before:
                with open(self.work.path(name)) as f:
                    text = f.read()
                if "\ntotals:" in text:
                    return counts(text)
            time.sleep(0.05)
        raise Failed("%s: callgrind writes no profile" % self.name)

    def dumps(self):
        return [name for name in os.listdir(self.work.folder) if name.startswith("callgrind-%s." % self.name)]

    def settle(self):
        """Waits until a question is answered: a proxy may listen before its certificates are in place."""
        end = time.monotonic() + LIMIT
        while True:
            try:
                with self.client(self.ports[0]) as client:
                    return client.ask(1)
            except OSError as error:
                if time.monotonic() > end:
                    raise Failed("%s: no answer: %s" % (self.name, error)) from error
            time.sleep(0.2)

    def count(self):
        """Figures per request."""
        self.settle()
        with self.client(self.ports[0]) as client:
            client.ask(WARM)
            self.dump(1)
            client.ask(SHORT)
            short = self.dump(2)
            client.ask(LONG)
            long = self.dump(3)
        return {key: round((long[key] - short[key]) / (LONG - SHORT), 2) for key in short}


def counts(profile):
    """Instructions, system calls and allocations of one profile in callgrind's format."""
    events = re.search(r"^events: (.*)$", profile, re.M).group(1).split()
    totals = dict(zip(events, map(int, re.search(r"^totals: (.*)$", profile, re.M).group(1).split())))
    names, allocations, callee = {}, 0, None
    for line in profile.splitlines():
        if line.startswith(("fn=", "cfn=")):
            number, _, name = line.partition("=")[2].partition(" ")
            if name:
                names[number] = name
            if line.startswith("cfn="):
                callee = names[number]
        elif line.startswith("calls=") and ALLOCATORS.match(callee or ""):
            allocations += int(line[6:].split()[0])
    return dict(instructions=totals["Ir"], allocations=allocations, syscalls=totals["sysCount"])


def compare(found, recorded):
    """What costs more than is recorded, one line each."""
    for name, figures in found.items():
        for key, value in figures.items():
            before = recorded["scenarios"].get(name, {}).get(key)
            if before is None:
                yield "%s: no %s recorded" % (name, key)
            elif value > before * (1 + TOLERANCE) + SLACK[key]:
                yield "%s: %.1f %s per request, recorded are %.1f (%+.1f %%)" % (
                    name, value, key, before, 100 * (value / before - 1) if before else 0)


def advice():
    return """What costs more is in the profile: count.py -s SCENARIO --keep, then callgrind_annotate --inclusive=yes on
its last part, once with the change and once without. If the change is worth it: make bench-record, and say in the
commit what became dearer and why."""


def show(found, recorded):
    print("%-16s %14s %14s %14s" % ("per request", "instructions", "allocations", "syscalls"))
    for name, figures in found.items():
        old = recorded.get("scenarios", {}).get(name, {})
        cells = ["%.1f%s" % (value, " (%+.1f%%)" % (100 * (value / old[key] - 1)) if old.get(key) else "")
                 for key, value in figures.items()]
        print("%-16s %s" % (name, " ".join("%14s" % cell for cell in cells)))


def measure(args, binary):
    folder = tempfile.mkdtemp(prefix="weft-count-")
    work = files.Work(folder)
    try:
        work.build_tool()
        work.certificates("ecdsa")
        found = {}
        for name in args.scenarios:
            with Chain(work, binary, name) as chain:
                found[name] = chain.count()
        return found
    finally:
        if args.keep:
            print("kept: " + folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def main():
    args = arguments()
    binary = shutil.which(os.environ.get("WEFT_BIN", "weft"))
    missing = [tool for tool in ("valgrind", "callgrind_control", "openssl", "cc") if not shutil.which(tool)]
    if not binary or missing:
        print("count: %s" % ("missing: " + ", ".join(missing) + " (make setup-test)" if missing else
                             "WEFT_BIN names no program"), file=sys.stderr)
        return 2
    recorded = {}
    if os.path.exists(RECORD):
        with open(RECORD) as f:
            recorded = json.load(f)
    if not (args.record or args.out) and not recorded:
        print("count: %s does not exist: make bench-record writes it" % RECORD, file=sys.stderr)
        return 2
    profile = os.environ.get("WEFT_PROFILE", "counted")
    if not args.record and recorded.get("profile", profile) != profile:
        print("count: %s is of a build with profile %s, this one is %s: make bench-guard COUNTED_PROFILE=%s" % (
            RECORD, recorded["profile"], profile, recorded["profile"]), file=sys.stderr)
        return 2
    try:
        found = measure(args, binary)
    except (Failed, OSError, subprocess.SubprocessError) as error:
        print("count: %s" % error, file=sys.stderr)
        return 2
    show(found, recorded)
    result = dict(format=FORMAT, profile=profile, scenarios=found)
    for path in filter(None, (args.out, RECORD if args.record else None)):
        scenarios = {**recorded.get("scenarios", {}), **found} if path == RECORD else found
        files.write(path, json.dumps(dict(result, scenarios=scenarios), indent=1) + "\n")
    if args.record or args.out:
        return 0
    worse = list(compare(found, recorded))
    for line in worse:
        print("WORSE " + line)
    if worse:
        print(advice())
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
