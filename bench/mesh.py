"""Two pods of a mesh that `weft up` has made: what `Deployment` is for proxies that are started by hand.

The sidecars are those that users have, with everything a mesh gives them: redirection, identity, policy, metrics and
traces. The load generator runs in the network namespace of the client's pod, as the application there would.
"""
import contextlib
import json
import os
import socket
import subprocess
import time

import machine as m
from deployment import Deployment
from files import compiler, run, write

ADMIN = 15000
# An application with an image of nothing but the load generator, which is the back end, too.
COMPOSE = """\
name: bench
services:
  backend:
    build: .
    command: [/wbtool, backend, --bind, 0.0.0.0, --http, "8080", --echo, "8082", --source, "8083"]
    environment: [BENCH_POD=%(mark)s-server]
    expose: ["8080", "8082", "8083"]
  client:
    build: .
    command: [/wbtool, backend, --bind, 127.0.0.1, --http, "8081"]
    environment: [BENCH_POD=%(mark)s-client]
"""
DOCKERFILE = "FROM scratch\nCOPY wbtool /wbtool\n"


class Process:
    """A process that somebody else has started."""

    def __init__(self, pid):
        self.pid = pid


class MeshDeployment(Deployment):
    """A client's pod and a server's with their sidecars."""
    host = "backend"

    def __init__(self, machine, name, spec, role, backend_port):
        Deployment.count += 1
        self.machine, self.name, self.spec, self.role = machine, name, spec, role
        self.number, self.backend_port, self.hop = Deployment.count, backend_port or role.backend, None
        self.mark = "%s-%d" % (machine.tag, self.number)
        self.folder = machine.path("mesh-%d" % self.number)
        self.sidecars, self.namespaces, self.backend = [], [], None
        self.application_folder = os.path.join(self.folder, "application")
        os.makedirs(self.application_folder)

    def weft(self, *words, timeout=60):
        """Output of a command of this mesh's; RuntimeError with what it says if it fails."""
        own = {"WEFT_HOME": os.path.join(self.folder, "home"), "WEFT_RUNTIME_DIR": os.path.join(self.folder, "run"),
               "WEFT_API_ADDRESS": "127.0.0.1:0"}
        done = subprocess.run([self.binary(), *words], cwd=self.application_folder, stdin=subprocess.DEVNULL,
                              env=dict(os.environ, **own, **self.spec["env"]), capture_output=True, text=True,
                              timeout=timeout)
        if done.returncode:
            raise RuntimeError("weft %s: %s" % (" ".join(words[:2]), (done.stderr or done.stdout).strip()))
        return done.stdout

    # -- start and stop
    def start(self, wait=True):
        run(compiler(), "-O2", "-static", "-o", os.path.join(self.application_folder, "wbtool"),
            os.path.join(m.HERE, "tools", "wbtool.c"))
        write(os.path.join(self.application_folder, "Dockerfile"), DOCKERFILE)
        write(os.path.join(self.application_folder, "compose.yaml"), COMPOSE % {"mark": self.mark})
        # Who starts it runs on one CPU, and so does all that it starts: a sidecar has one worker then.
        self.weft("--quiet", "up", "--detach", timeout=120)
        service = json.loads(self.weft("get", "service", "backend", "--output", "json"))
        service = service["items"][0] if "items" in service else service
        self.front = service["spec"]["clusterIP"], self.backend_port
        client, server = (self.application(side) for side in ("client", "server"))
        self.backend = Process(server)
        self.client_ns, self.server_ns = (self.attach(pid, side) for pid, side in ((client, "c"), (server, "s")))
        self.sidecars = [pid for application in (client, server) for pid in self.sidecar(application)]
        for pid in self.sidecars:
            self.pin(pid)

    def application(self, side):
        """The application's process in a pod."""
        wanted = ("BENCH_POD=%s-%s" % (self.mark, side)).encode()
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with contextlib.suppress(OSError), open("/proc/%d/environ" % pid, "rb") as f:
                if wanted in f.read().split(b"\0"):
                    return pid
        raise RuntimeError("the %s's application does not run" % side)

    def sidecar(self, application):
        """The processes of the sidecar in the same network namespace."""
        found, own = [], os.stat("/proc/%d/ns/net" % application).st_ino
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with contextlib.suppress(OSError), open("/proc/%d/cmdline" % pid, "rb") as f:
                if b"proxy" in f.read().split(b"\0") and os.stat("/proc/%d/ns/net" % pid).st_ino == own:
                    found.append(pid)
        if not found:
            raise RuntimeError("there is no sidecar beside process %d" % application)
        return found

    def attach(self, pid, side):
        """A name for the network namespace of a process."""
        name = "%s-%d%s" % (self.machine.tag, self.number, side)
        run("ip", "netns", "attach", name, str(pid))
        self.machine.namespaces.append(name)
        self.namespaces.append(name)
        self.machine.tune(name)
        return name

    def pin(self, pid):
        """All threads of a sidecar to the proxies' CPU, with its weight."""
        for thread in os.listdir("/proc/%d/task" % pid):
            os.sched_setaffinity(int(thread), {self.machine.proxy_cpu})
        if self.machine.proxy_cpu in self.machine.groups:
            write(self.machine.groups[self.machine.proxy_cpu] + "/cgroup.procs", pid)

    def stop(self):
        for name in self.namespaces:
            self.machine.remove_namespace(name)
        self.namespaces, self.sidecars = [], []
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):      # there may be nothing to stop
            self.weft("--quiet", "down", "--volumes")

    def close(self):
        self.stop()

    def pids(self):
        return self.sidecars

    # -- what is asked of it
    def check(self):
        """RuntimeError unless bodies arrive unchanged, by the way that this mesh is about."""
        super().check()
        channels = self.metric("weft_listener_local_channels_total")
        if (channels > 0) != self.spec["local_channels"]:
            raise RuntimeError("the sidecars have opened %d local channels" % channels)

    def metric(self, name):
        """Sum of a metric of the server's sidecar."""
        with self.machine.inside(self.server_ns):
            sock = socket.create_connection(("127.0.0.1", ADMIN), 5)
        with sock:
            sock.sendall(b"GET /stats/prometheus HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            end, text = time.monotonic() + 5, b""
            while time.monotonic() < end and (part := sock.recv(1 << 16)):
                text += part
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.decode().splitlines()
                   if line.startswith((name + " ", name + "{")))
