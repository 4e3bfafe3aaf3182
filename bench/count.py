#!/usr/bin/env python3
"""What a request costs weft, in instructions, allocations and system calls: figures that hold on a busy machine.

  count.py                       count, and compare with counts.json; exit status 1 where something costs more
  count.py --record              count, and write counts.json (of builds of this profile)
  count.py -s h1,h2 --keep       some scenarios; the profiles stay, for callgrind_annotate
  count.py -p weft,haproxy       weft beside other proxies, with ratios; compares with no record

A proxy with one worker runs under callgrind, a client asks one request after another, over one connection where nothing else
is said. After the warm-up come two stretches of different length; the difference is free of what is done once per stretch, and of timers.
Needs valgrind, a C compiler and openssl; no root. The proxy is WEFT_BIN. See README.md.
"""
import argparse
import json
import os
import platform
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
FORMAT = 2                          # of counts.json
WARM, SHORT, LONG = 150, 50, 350    # requests
SAMPLING = "0"                      # percent of requests that are traced: which ones is chance, and a span costs as much as a request
TOLERANCE = 0.05                    # share by which a figure may grow
# What it may grow by in any case, and by scenario. The thread that writes the access log takes what there is: sometimes a line,
# sometimes several. What is said on many connections comes together or apart, and with a new one at once or a moment later; what the
# server's side of a pair says comes in pieces where the two wait for a processor.
SLACK = {"instructions": 0, "allocations": 0.3, "syscalls": 0.4, "clock": 0.5}
NEW_SLACK = {"instructions": 10000, "allocations": 1.0, "syscalls": 3.0, "clock": 7.0}
SCENARIO_SLACK = {
    "h1-all": {"instructions": 20000, "allocations": 4.5, "syscalls": 6.0, "clock": 6.0},
    "h1-many": {"instructions": 5000, "allocations": 1.5, "syscalls": 2.0, "clock": 7.0},
    "h1-close": NEW_SLACK,
    "tcp-conn": NEW_SLACK,
    "h1-mtls-client": {**SLACK, "allocations": 1.5},
}
LIMIT = 300                         # seconds that anything of a scenario may take
CLOCK = re.compile(r"(__vdso_)?clock_gettime\b")
ALLOCATORS = re.compile(r"(malloc|calloc|realloc|posix_memalign|aligned_alloc|memalign)('\d+)?$")

# What the C library's copies are made of is the same on every processor: `rep movsb` would count as an instruction per byte.
TUNABLES = "glibc.cpu.hwcaps=-ERMS,-FSRM"
# Of what valgrind shows a program of the processor, what libraries choose their routines by.
FEATURES = ("aes", "avx", "avx2", "bmi2", "pclmulqdq", "rdrand", "rdseed", "sse4_2")

# Scenario: the template, the flags of each proxy of the chain, which of them is counted, the back end's port, the client.
COUNTED = {
    "h1": ("http", ((),), 0, sc.HTTP, clients.Http1),
    "h1-post": ("http", ((),), 0, sc.HTTP, clients.Http1Post),
    "h1-many": ("http", ((),), 0, sc.HTTP, clients.Http1Many),
    "h1-close": ("http", ((),), 0, sc.HTTP, clients.Http1Close),
    "h2": ("http", (("H2",),), 0, sc.H2, clients.Http2),
    "tcp": ("tcp", (("TCP",),), 0, sc.ECHO, clients.PingPong),
    "tcp-conn": ("tcp", (("TCP",),), 0, sc.ECHO, clients.TcpConnect),
    "h1-mtls-client": ("http", sc.pair(), 0, sc.HTTP, clients.Http1),
    "h1-mtls-server": ("http", sc.pair(), 1, sc.HTTP, clients.Http1),
    "h1-all": ("http", (("ISTIO",),), 0, sc.HTTP, clients.Http1),
}


class Failed(Exception):
    """A count that could not be made; the text says why."""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-s", "--scenarios", default=",".join(COUNTED), help="names, separated by commas")
    parser.add_argument("-p", "--proxies", metavar="NAMES", help="weft beside others of proxies.json, separated by commas")
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

    def __init__(self, work, proxy, spec, binary, name):
        self.work, self.spec, self.binary, self.name = work, spec, binary, "%s-%s" % (proxy, name)
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
                command = self.command(k)
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
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       env=dict(os.environ, GLIBC_TUNABLES=TUNABLES))
        self.processes.append(process)
        end = time.monotonic() + LIMIT
        while not clients.answers(port):
            if process.poll() is not None or time.monotonic() > end:
                with open(log.name, errors="replace") as said:
                    raise Failed("%s: %s does not listen: %s" % (self.name, command[0], said.read()[-600:].strip()))
            time.sleep(0.05)

    def command(self, k):
        """The command line of a proxy of the chain, which is configured from its template."""
        up = self.ports[k + 1] if k + 1 < len(self.ports) else self.backend_port
        conf = proxies.configuration(
            self.spec, self.template, self.flags[k], self.work, "%s-%d" % (self.name, k), ("127.0.0.1", self.ports[k]),
            ("127.0.0.1", up), COLLECTOR_PORT=str(self.backend_port), N_CLUSTERS="0", N_ENDPOINTS="0",
            CONNECT_TIMEOUT="%ds" % LIMIT, SAMPLING=SAMPLING)
        names = dict(bin=self.binary, conf=conf, work=self.work.folder)
        return [proxies.substitute(word, names) for word in self.spec["cmd"]]

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
        # What it does once at rest is no part of a request.
        time.sleep(sc.SETTLE)
        with self.client(self.ports[0]) as client:
            client.ask(WARM)
            self.dump(1)
            client.ask(SHORT)
            short = self.dump(2)
            client.ask(LONG)
            long = self.dump(3)
        return {key: round((long[key] - short[key]) / (LONG - SHORT), 2) for key in short}


def counts(profile):
    """Instructions, allocations, system calls and reads of the clock of one profile in callgrind's format."""
    events = re.search(r"^events: (.*)$", profile, re.M).group(1).split()
    totals = dict(zip(events, map(int, re.search(r"^totals: (.*)$", profile, re.M).group(1).split())))
    at = 1 + events.index("sysCount")
    names, allocations, clock, owner, callee, is_call = {}, 0, 0, None, None, False
    for line in profile.splitlines():
        if line.startswith(("fn=", "cfn=")):
            number, _, name = line.partition("=")[2].partition(" ")
            if name:
                names[number] = name
            if line.startswith("cfn="):
                callee = names[number]
            else:
                owner = names[number]
        elif line.startswith("calls="):
            is_call = True
            if ALLOCATORS.match(callee or ""):
                allocations += int(line[6:].split()[0])
        elif line[:1] in "0123456789+-*" and line:
            costs = line.split()
            if not is_call and len(costs) > at and CLOCK.match(owner or ""):
                clock += int(costs[at])
            is_call = False
    return dict(instructions=totals["Ir"], allocations=allocations, syscalls=totals["sysCount"] - clock, clock=clock)


def machine():
    """What instructions depend on, beside the program: another compiler, other routines of libraries."""
    with open("/proc/cpuinfo") as f:
        flags = set(re.search(r"^(?:flags|Features)\s*: (.*)$", f.read(), re.M).group(1).split())
    compiler = subprocess.run([os.environ.get("RUSTC", "rustc"), "--version"], capture_output=True, text=True, check=True)
    return dict(compiler=compiler.stdout.strip(), libc=" ".join(platform.libc_ver()),
                processor="%s %s" % (platform.machine(), ",".join(f for f in FEATURES if f in flags)))


def compare(found, recorded, figures):
    """What costs more than is recorded, one line each."""
    for name, counted in found.items():
        slack = {**SLACK, **SCENARIO_SLACK.get(name, {})}
        for key in figures:
            value, before = counted[key], recorded.get(name, {}).get(key)
            if before is None:
                yield "%s: no %s recorded" % (name, key)
            elif value > before * (1 + TOLERANCE) + slack[key]:
                yield "%s: %.1f %s per request, recorded are %.1f (%+.1f %%)" % (
                    name, value, key, before, 100 * (value / before - 1) if before else 0)


def count_again(args, chosen, found, recorded):
    """Counts once more what costs more than is recorded: a timer that fires beside a stretch only ever adds."""
    worse = [name for name in found if list(compare({name: found[name]}, recorded, SLACK))]
    if worse:
        print("Counted again: " + ", ".join(worse), file=sys.stderr)
        for name, figures in measure(args, chosen, worse)["weft"].items():
            found[name] = {key: min(value, figures[key]) for key, value in found[name].items()}


def comparable(record, here):
    """The figures that can be compared with those of the machine of the record."""
    figures = list(SLACK)
    differs = [key for key in here if record.get("machine", {}).get(key) != here[key]]
    if differs:
        figures.remove("instructions")
        print("Instructions are not compared: the record is of another %s (%s here)." % (
            ", ".join(differs), ", ".join(here[key] for key in differs)))
    return figures


def advice():
    return """What costs more is in the profile: count.py -s SCENARIO --keep, then callgrind_annotate --inclusive=yes on
its last part, once with the change and once without. If the change is worth it: make bench-record, and say in the
commit what became dearer and why."""


def show(found, recorded):
    print("%-16s %s" % ("per request", " ".join("%16s" % key for key in SLACK)))
    for name, figures in found.items():
        old = recorded.get(name, {})
        cells = ["%.1f%s" % (value, " (%+.1f%%)" % (100 * (value / old[key] - 1)) if old.get(key) else "")
                 for key, value in figures.items()]
        print("%-16s %s" % (name, " ".join("%16s" % cell for cell in cells)))


def measure(args, chosen, scenarios):
    """Figures of each scenario of each proxy chosen (name: its entry and its binary)."""
    folder = tempfile.mkdtemp(prefix="weft-count-")
    work = files.Work(folder)
    try:
        work.build_tools("wbtool")
        work.certificates("ecdsa")
        found = {}
        for proxy, (spec, binary) in chosen.items():
            found[proxy] = {}
            for name in scenarios:
                if name not in spec.get("unsupported", []):
                    with Chain(work, proxy, spec, binary, name) as chain:
                        found[proxy][name] = chain.count()
        return found
    finally:
        if args.keep:
            print("kept: " + folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def beside(args, chosen):
    """Prints the instructions of each proxy, and how many weft takes for one of theirs."""
    found = measure(args, chosen, args.scenarios)
    others = [name for name in found if name != "weft"]
    print("%-16s %12s %s" % ("instructions", "weft", " ".join("%24s" % name for name in others)))
    for name in args.scenarios:
        mine = found["weft"][name]["instructions"]
        cells = ["%.0f (weft/%s %.2f)" % (theirs["instructions"], other, mine / theirs["instructions"]) if theirs else "-"
                 for other, theirs in ((other, found[other].get(name)) for other in others)]
        print("%-16s %12.0f %s" % (name, mine, " ".join("%24s" % cell for cell in cells)))
    if args.out:
        files.write(args.out, json.dumps(dict(format=FORMAT, machine=machine(), proxies=found), indent=1) + "\n")


def main():
    args = arguments()
    specs = proxies.load()
    names = ["weft", *(name for name in (args.proxies or "").split(",") if name and name != "weft")]
    unknown = [name for name in names if name not in specs]
    if unknown:
        print("count: no proxy %s; bench.py --list shows what there is" % ", ".join(unknown), file=sys.stderr)
        return 2
    chosen = {name: (specs[name], proxies.binary(specs[name])) for name in names}
    binary = chosen["weft"][1]
    missing = [tool for tool in ("valgrind", "callgrind_control", "openssl", "cc") if not shutil.which(tool)]
    if not binary or missing:
        print("count: %s" % ("missing: " + ", ".join(missing) + " (make setup-test)" if missing else
                             "WEFT_BIN names no program"), file=sys.stderr)
        return 2
    if args.proxies:
        for name in [name for name, (_, path) in chosen.items() if not path]:
            print("%s left out: %s" % (name, proxies.why_missing(specs[name])), file=sys.stderr)
            del chosen[name]
        try:
            beside(args, chosen)
        except (Failed, OSError, subprocess.SubprocessError) as error:
            print("count: %s" % error, file=sys.stderr)
            return 2
        return 0
    profile, profiles = os.environ.get("WEFT_PROFILE", "counted"), {}
    if os.path.exists(RECORD):
        with open(RECORD) as f:
            profiles = json.load(f)["profiles"]
    record = profiles.get(profile, {})
    recorded = record.get("scenarios", {})
    if not (args.record or args.out or recorded):
        print("count: %s has no figures of builds of the profile %s: make bench-record COUNTED_PROFILE=%s" % (
            RECORD, profile, profile), file=sys.stderr)
        return 2
    try:
        found, here = measure(args, chosen, args.scenarios)["weft"], machine()
        if not (args.record or args.out):
            count_again(args, chosen, found, recorded)
    except (Failed, OSError, subprocess.SubprocessError) as error:
        print("count: %s" % error, file=sys.stderr)
        return 2
    show(found, recorded)
    if args.out:
        files.write(args.out, json.dumps(dict(format=FORMAT, profile=profile, machine=here, scenarios=found), indent=1) + "\n")
    if args.record:
        kept = recorded if record.get("machine") == here else {}
        profiles[profile] = dict(machine=here, scenarios={**kept, **found})
        files.write(RECORD, json.dumps(dict(format=FORMAT, profiles=profiles), indent=1) + "\n")
    if args.record or args.out:
        return 0
    worse = list(compare(found, recorded, comparable(record, here)))
    for line in worse:
        print("WORSE " + line)
    if worse:
        print(advice())
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
