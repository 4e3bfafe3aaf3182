"""The machine: network namespaces, processes pinned to a CPU, their CPU time and memory; and leaving nothing behind."""
import contextlib
import ctypes
import mmap
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import time

from files import Work, compiler, run, write

SIDECAR_UID = 1337
HERE = os.path.dirname(os.path.abspath(__file__))
CLONE_NEWNET, PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 0x40000000, 1, 36
libc = ctypes.CDLL(None, use_errno=True)


class Unusable(Exception):
    """This machine cannot run the benchmark; the text says what to do."""


def requirements(proxy_cpu, load_cpu):
    """Refuses a machine that cannot run the benchmark, before anything is made."""
    if os.geteuid() != 0:
        raise Unusable("root is needed: the benchmark makes network namespaces (try sudo)")
    if not compiler():
        raise Unusable("no C compiler, needed for the load generator: apt-get install gcc libc6-dev")
    packages = {"ip": "iproute2", "iptables": "iptables", "openssl": "openssl"}
    missing = sorted(package for tool, package in packages.items() if not shutil.which(tool))
    if missing:
        raise Unusable("missing tools: apt-get install " + " ".join(missing))
    allowed = os.sched_getaffinity(0)
    if proxy_cpu == load_cpu or not {proxy_cpu, load_cpu} <= allowed:
        raise Unusable("two CPUs are needed, one for the proxies and one for load and back end: %d and %d asked for, "
                       "allowed here: %s (WB_PROXY_CPU, WB_LOAD_CPU)" % (proxy_cpu, load_cpu, sorted(allowed)))


def own_session():
    """Goes on in a child with a session of its own, to which signals are passed on; the parent waits and exits as it.

    So Ctrl-C reaches this program alone, and it ends the proxies in its own order.
    """
    parent, child = os.getpid(), os.fork()
    if child == 0:
        os.setsid()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            raise SystemExit(1)
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: os.kill(child, n))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(status if status >= 0 else 128 - status)


# ---- accounting ------------------------------------------------------------------------------------------------------
def stat_fields(pid):
    """Fields of /proc/PID/stat from the third on (state, parent, ...)."""
    with open("/proc/%d/stat" % pid) as f:
        return f.read().rsplit(") ", 1)[1].split()


def tree(pid):
    """A process and its descendants."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(stat_fields(int(name))[1]), []).append(int(name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def cpu_times(pids):
    """Per process, with its children that have ended: seconds in user mode and in the kernel (ticks of 10 ms); and the exact sum
    over its live threads."""
    times, hz = {}, os.sysconf("SC_CLK_TCK")
    for pid in pids:
        fields, nanoseconds = stat_fields(pid), 0
        for thread in os.listdir("/proc/%d/task" % pid):
            with contextlib.suppress(OSError), open("/proc/%d/task/%s/schedstat" % (pid, thread)) as f:
                nanoseconds += int(f.read().split()[0])
        user, system, children_user, children_system = (int(field) / hz for field in fields[11:15])
        times[pid] = user + children_user, system + children_system, nanoseconds / 1e9
    return times


def cpu_between(before, after):
    """CPU seconds (total, user, system) between two results of cpu_times; processes that are new count from zero."""
    if set(before) - set(after):
        raise RuntimeError("a process of the proxy ended while it was measured")
    user, system, exact = (sum(now[i] - before.get(pid, (0, 0, 0))[i] for pid, now in after.items()) for i in range(3))
    # schedstat loses threads that have ended, stat rounds to ticks: the exact figure unless they disagree
    total = exact if abs(exact - user - system) < 0.03 + 0.02 * exact else user + system
    return total, user, system


def given(cpu):
    """Seconds that the hypervisor has given to a CPU so far, by its timer ticks; idle time counts as given.

    The time that it reports as stolen does not count, nor does a pause that it does not report: then ticks are missing.
    """
    with open("/proc/stat") as f:
        for line in f:
            words = line.split()
            if words[0] == "cpu%d" % cpu:
                return sum(map(int, words[1:8])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def memory(pids):
    """KiB resident, proportional (shared pages divided) and anonymous of the processes together."""
    sums = {"Rss:": 0, "Pss:": 0, "Anonymous:": 0}
    for pid in pids:
        with open("/proc/%d/smaps_rollup" % pid) as f:
            for line in f:
                key, value = line.split()[:2]
                if key in sums:
                    sums[key] += int(value)
    return dict(rss=sums["Rss:"], pss=sums["Pss:"], anon=sums["Anonymous:"])


def cpu_model():
    with open("/proc/cpuinfo") as f:
        return next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), "unknown")


def listening(pid, port):
    """Whether something listens on the port in the network namespace of the process (no connection is made)."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError, ValueError), open("/proc/%d/net/%s" % (pid, table)) as f:
            for line in f:
                words = line.split()
                if words[3] == "0A" and int(words[1].rsplit(":", 1)[1], 16) == port:
                    return True
    return False


# ---- what is made and removed ----------------------------------------------------------------------------------------
class Machine(Work):
    """Namespaces, processes and the work folder of one run; a context manager that removes them all."""

    def __init__(self, proxy_cpu, load_cpu, share=1, keep=False):
        self.proxy_cpu, self.load_cpu, self.share, self.keep = proxy_cpu, load_cpu, share, keep
        self.tag = "wb%d" % os.getpid()
        super().__init__("")
        self.processes, self.namespaces, self.groups = [], [], {}
        self.executed = mmap.mmap(-1, struct.calcsize("d"))         # shared with the children
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY)

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda n, _: self.interrupted(n))
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.remove_stale()
        self.folder = tempfile.mkdtemp(prefix=self.tag + "-")
        os.chmod(self.folder, 0o777)
        os.sched_setaffinity(0, {self.load_cpu})
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return self

    def make_groups(self):
        """A control group per CPU, each with `share` times the weight of an ordinary one; self into the load's.

        One per CPU, because a group's weight is spread over the CPUs it runs on: so the spinner alone holds the
        weight while the proxies sleep, and they get their CPU back at once. False where the system does not let us.
        """
        root, knob, weight = cpu_controller()
        if not root or self.share <= 1:
            return self.share <= 1
        try:
            for cpu in (self.proxy_cpu, self.load_cpu):
                group = os.path.join(root, "%s-%d" % (self.tag, cpu))
                os.mkdir(group)
                self.groups[cpu] = group
                write(os.path.join(group, knob), weight * self.share)
            write(self.groups[self.load_cpu] + "/cgroup.procs", os.getpid())
        except OSError:
            self.remove_groups(root)
        return bool(self.groups)

    def remove_groups(self, root):
        if self.groups:
            with contextlib.suppress(OSError):
                write(root + "/cgroup.procs", os.getpid())
        for group in self.groups.values():
            for _ in range(100):
                try:
                    os.rmdir(group)
                    break
                except OSError:                                     # the last process is still being taken down
                    time.sleep(0.02)
        self.groups = {}

    def interrupted(self, number):
        for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):    # nothing may interrupt the removal
            signal.signal(n, signal.SIG_IGN)
        raise SystemExit(128 + number)

    def __exit__(self, *_):
        for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(n, signal.SIG_IGN)
        for process in reversed(self.processes[:]):
            self.stop(process)
        for pid in tree(os.getpid())[1:]:                           # what the proxies have left behind
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for name in self.namespaces[:]:
            self.remove_namespace(name)
        self.remove_groups(cpu_controller()[0])
        if self.keep:
            print("kept: " + self.folder, flush=True)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def remove_stale(self):
        """What an earlier run left that was killed outright: its name has the id of a process that is no more."""
        def orphan(name):
            found = re.match(r"wb(\d+)(-|$)", name)
            return found and not os.path.exists("/proc/" + found.group(1))
        for name in filter(orphan, os.listdir("/run/netns") if os.path.isdir("/run/netns") else ()):
            run("ip", "netns", "del", name, check=False)
        for name in filter(orphan, os.listdir(tempfile.gettempdir())):
            shutil.rmtree(os.path.join(tempfile.gettempdir(), name), ignore_errors=True)
        root = cpu_controller()[0]
        for name in filter(orphan, os.listdir(root) if root else ()):
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(root, name))

    # -- namespaces
    def namespace(self, name):
        self.namespaces.append(name)
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        self.tune(name)
        return name

    def tune(self, name):
        """Ports for many connections in a row."""
        with self.inside(name):
            for key, value in (("tcp_congestion_control", "reno"), ("ip_local_port_range", "16384 65000"),
                               ("tcp_tw_reuse", "1")):
                with contextlib.suppress(OSError), open("/proc/sys/net/ipv4/" + key, "w") as f:
                    f.write(value)

    def remove_namespace(self, name):
        run("ip", "netns", "del", name, check=False)
        self.namespaces.remove(name)

    @contextlib.contextmanager
    def inside(self, name):
        """This thread in a namespace: processes and sockets made meanwhile belong there."""
        fd = os.open("/run/netns/" + name, os.O_RDONLY)
        try:
            if libc.setns(fd, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns " + name)
            yield
        finally:
            libc.setns(self.home, CLONE_NEWNET)
            os.close(fd)

    def pods(self, number, redirect):
        """Two namespaces joined by a veth pair; redirect: istio, ztunnel, conntrack (rules that send nothing
        elsewhere) or none. Returns their names and addresses, client first."""
        names = self.namespace("%s-%dc" % (self.tag, number)), self.namespace("%s-%ds" % (self.tag, number))
        ips = "10.77.%d.1" % (number % 250), "10.77.%d.2" % (number % 250)
        run("ip", "link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for name, ip in zip(names, ips):
            run("ip", "-n", name, "addr", "add", ip + "/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            for rule in redirection(redirect):
                run("ip", "netns", "exec", name, "iptables", "-w", "-t", "nat", *rule.split())
        return (*names, *ips)

    # -- processes
    def spawn(self, command, namespace, cpu, uid=None, env=None, log=None, pipe=False):
        """A process in a namespace, pinned to a CPU, that ends with this one."""
        def prepare():
            os.sched_setaffinity(0, {cpu})
            if cpu in self.groups:
                write(self.groups[cpu] + "/cgroup.procs", os.getpid())
            if uid:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            struct.pack_into("d", self.executed, 0, time.monotonic())
        with contextlib.ExitStack() as stack:
            err = stack.enter_context(open(log, "ab")) if log else subprocess.DEVNULL
            stack.enter_context(self.inside(namespace))
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if pipe else err,
                                       stderr=err, env=dict(os.environ, **(env or {})), text=pipe, preexec_fn=prepare)
            self.processes.append(process)
        return process

    def last_executed(self):
        """When the last process that was spawned was about to become its program."""
        return struct.unpack_from("d", self.executed)[0]

    def stop(self, process):
        """Ends a process and its descendants."""
        if process in self.processes:
            self.processes.remove(process)
        if process.poll() is None:
            family = tree(process.pid)
            process.terminate()
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                pass
            for pid in family[1:] if process.poll() is not None else family:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            process.wait(10)
        if process.stdout:
            process.stdout.close()

    def wait_listening(self, process, port, limit=60):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if process.poll() is not None:
                raise RuntimeError("exited with status %d before it listened" % process.returncode)
            if listening(process.pid, port):
                return
            time.sleep(0.01)
        raise RuntimeError("nothing listens on port %d after %d s" % (port, limit))


def cpu_controller():
    """Folder of the CPU controller's topmost control group, its knob for the weight and the ordinary weight."""
    with open("/proc/self/mounts") as f:
        mounts = [line.split() for line in f]
    for _, folder, kind, options, *_ in mounts:
        if kind == "cgroup" and "cpu" in options.split(","):
            return folder, "cpu.shares", 1024
    for _, folder, kind, *_ in mounts:
        if kind == "cgroup2":
            with contextlib.suppress(OSError), open(folder + "/cgroup.subtree_control") as f:
                if "cpu" in f.read().split():
                    return folder, "cpu.weight", 100
    return None, None, None


def redirection(kind):
    """iptables rules of a pod (table nat): Istio's, or for ztunnel's kind of proxy a variant that does not send a
    pod's calls to itself through the inbound port."""
    if kind == "none":
        return []
    if kind == "conntrack":
        return ["-A OUTPUT -p tcp --dport 9 -j ACCEPT", "-A PREROUTING -p tcp --dport 9 -j ACCEPT"]
    user, group = "-m owner --uid-owner %d" % SIDECAR_UID, "-m owner --gid-owner %d" % SIDECAR_UID
    others = ("-m owner ! --uid-owner %d" % SIDECAR_UID, "-m owner ! --gid-owner %d" % SIDECAR_UID)
    to_self = "-A ISTIO_OUTPUT -o lo %s -j RETURN" % user
    if kind == "istio":
        to_self = "-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp ! --dport 15008 %s -j ISTIO_IN_REDIRECT" % user
    return [
        "-N ISTIO_INBOUND", "-N ISTIO_OUTPUT", "-N ISTIO_REDIRECT", "-N ISTIO_IN_REDIRECT",
        "-A PREROUTING -p tcp -j ISTIO_INBOUND", "-A OUTPUT -p tcp -j ISTIO_OUTPUT",
        *("-A ISTIO_INBOUND -p tcp --dport %d -j RETURN" % port for port in (15008, 15090, 15021, 15020)),
        "-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT",
        "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006",
        "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
        "-A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN",
        to_self,
        "-A ISTIO_OUTPUT -o lo %s -j RETURN" % others[0], "-A ISTIO_OUTPUT %s -j RETURN" % user,
        "-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo %s -j ISTIO_IN_REDIRECT" % group,
        "-A ISTIO_OUTPUT -o lo %s -j RETURN" % others[1], "-A ISTIO_OUTPUT %s -j RETURN" % group,
        "-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN", "-A ISTIO_OUTPUT -j ISTIO_REDIRECT",
    ]
