"""A proxy (or a pair of them, or none) in one role, with its back end, ready to be loaded and measured."""
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import files
import machine as m
import proxies
import scenarios as sc

DIRECT = ("direct", "direct-ct")        # no proxy; the second with connection tracking on, as redirection has it
KNOWN_LOADS = ("wrk", "h2load")         # load generators besides wbtool


class Deployment:
    count = 0
    host = "bench.local"    # what requests name

    def __init__(self, machine, shared, name, spec, role, backend_port):
        """`shared`: the namespace and the back end process of the roles that are not in pods."""
        Deployment.count += 1
        self.machine, self.name, self.spec, self.role = machine, name, spec, role
        self.number, self.backend_port = Deployment.count, backend_port or role.backend
        self.processes, self.helpers, self.hop = [], [], None
        if role.pod:
            redirect = {"direct": "none", "direct-ct": "conntrack"}.get(name, (spec or {}).get("pod", "istio"))
            self.client_ns, self.server_ns, self.client_ip, self.server_ip = machine.pods(self.number, redirect)
            self.backend = start_backend(machine, self.server_ns, "0.0.0.0")
            self.front = self.server_ip, self.backend_port
        else:
            self.client_ns = self.server_ns = shared[0]
            self.client_ip = self.server_ip = "127.0.0.1"
            self.backend = shared[1]
            self.front = "127.0.0.1", self.backend_port

    def close(self):
        self.stop()
        if self.role.pod:
            self.machine.stop(self.backend)
            self.machine.remove_namespace(self.client_ns)
            self.machine.remove_namespace(self.server_ns)

    # -- start and stop
    def start(self, wait=True):
        """Starts the proxies, the server's side first, unless this is the direct path."""
        if self.name in DIRECT:
            return
        last, base = len(self.role.chain) - 1, 2000 + 10 * (self.number % 600)
        for k in range(last, -1, -1):
            if self.role.pod:
                listen = "0.0.0.0", 15001 if k < last else 15006
                up = (self.server_ip if k < last else "127.0.0.1"), self.backend_port
            else:
                listen = "127.0.0.1", base + k
                up = "127.0.0.1", base + k + 1 if k < last else self.backend_port
            process = self.start_proxy(k, listen, up)
            if wait:
                self.machine.wait_listening(process, listen[1])
        if self.role.pod:
            self.hop = None if last == 0 else (self.server_ip, self.backend_port)
        else:
            self.front = "127.0.0.1", base
            self.hop = None if last == 0 else ("127.0.0.1", base + last)

    def start_proxy(self, k, listen, up):
        """One proxy of the chain, configured from its template."""
        work, side = self.machine.folder, "server" if k == len(self.role.chain) - 1 else "client"
        instance = "%s-%d-%d" % (self.name, self.number, k)
        conf = proxies.configuration(self.spec, self.role.template, self.role.chain[k], self.machine, instance, listen, up,
                                     ROLE=side, CLIENT_POD_IP=self.client_ip, SERVER_POD_IP=self.server_ip)
        hop = self.machine.path(instance + ".d")
        os.makedirs(hop, exist_ok=True)
        os.chmod(hop, 0o777)

        names = dict(bin=self.binary(), python=sys.executable, tools=os.path.join(m.HERE, "tools"), conf=conf, work=work,
                     hop=hop, pod=side, listen="%s:%d" % listen, up="%s:%d" % up, listen_port=str(listen[1]),
                     up_port=str(up[1]), client_pod_ip=self.client_ip, server_pod_ip=self.server_ip)

        def filled(words):
            return [proxies.substitute(word, names) for word in words]
        for command in self.spec.get("prepare", []):
            files.run(*filled(command))
        for file in os.listdir(hop):
            os.chmod(os.path.join(hop, file), 0o644)
        namespace, log = self.client_ns if side == "client" else self.server_ns, self.machine.path(instance + ".log")
        if "side" in self.spec:
            helper = self.machine.spawn(filled(self.spec["side"]), namespace, self.machine.load_cpu, log=log)
            self.helpers.append(helper)
        env = {key: proxies.substitute(value, names) for key, value in self.spec.get("env", {}).items()}
        self.processes.append(self.machine.spawn(filled(self.spec["cmd"]), namespace, self.machine.proxy_cpu, env=env,
                                                 uid=m.SIDECAR_UID if self.role.pod else None, log=log))
        return self.processes[-1]

    def binary(self):
        """The proxy's binary, copied to the work folder if a pod's user could not reach it where it is."""
        if "tool" in self.spec["binary"]:
            return self.machine.path(self.spec["binary"]["tool"])
        path = os.path.realpath(proxies.binary(self.spec))
        folder = os.path.dirname(path)
        while self.role.pod and folder != "/":
            if not os.stat(folder).st_mode & 0o001:
                copy = self.machine.path(os.path.basename(path))
                if not os.path.exists(copy):
                    shutil.copy(path, copy)
                    os.chmod(copy, 0o755)
                return copy
            folder = os.path.dirname(folder)
        return path

    def stop(self):
        for process in self.processes + self.helpers:
            self.machine.stop(process)
        self.processes, self.helpers = [], []
        for name in os.listdir(self.machine.folder):
            if name.startswith("access-"):
                os.truncate(self.machine.path(name), 0)

    def pids(self):
        return [pid for process in self.processes for pid in m.tree(process.pid)]

    # -- what is asked of it
    def check(self):
        """RuntimeError if the proxy does not do what its figures would be taken for."""
        if self.name in DIRECT or self.backend_port in (sc.SOURCE, sc.SINK):
            return
        task = dict(front=self.front, host=self.host, speaks=self.role.speaks,
                    hop_speaks=self.spec.get("hop_speaks", {}).get(self.role.template, self.role.speaks),
                    uid=m.SIDECAR_UID if self.role.pod else 0,
                    hop=None if self.spec.get("own_mtls") else self.hop, work=self.machine.folder)
        command = [sys.executable, os.path.join(m.HERE, "check.py"), json.dumps(task)]
        process = self.machine.spawn(command, self.client_ns, self.machine.load_cpu, pipe=True,
                                     log=self.machine.path("check.log"))
        try:
            wrong = process.communicate(timeout=60)[0].splitlines()
        except subprocess.TimeoutExpired:
            wrong = ["the check of it does not end"]
        self.machine.stop(process)
        if wrong or process.returncode:
            raise RuntimeError(wrong[0] if wrong else "the check of it failed")

    def load(self, arguments, seconds, warm, sample, at_end=None):
        """Runs the load generator; returns what it says and the samples taken at start and end of its window."""
        generator = [self.machine.path("wbtool"), "load"]
        if arguments[0] in KNOWN_LOADS:
            if not shutil.which(arguments[0]):
                raise RuntimeError("%s is not installed (scripts/setup.sh --bench)" % arguments[0])
            generator = [sys.executable, os.path.join(m.HERE, "tools", "known_load.py"), arguments[0]]
            arguments = arguments[1:]
        command = [*generator, "--addr", "%s:%d" % self.front, "--host", self.host,
                   "--dur", str(seconds), "--warm", str(warm), *arguments]
        process = self.machine.spawn(command, self.client_ns, self.machine.load_cpu, pipe=True)
        timer = threading.Timer(seconds + warm + 30, process.kill)
        timer.start()
        before = after = said = None
        try:
            for line in process.stdout:
                if line == "START\n":
                    before = sample(self, process)
                elif line == "END\n":
                    after = sample(self, process)
                    if at_end:
                        at_end()
                else:
                    said = json.loads(line)
        finally:
            timer.cancel()
            self.machine.stop(process)
        if not said or not before or not after:
            raise RuntimeError("the load generator got no answers")
        return said, before, after

    def first_response(self, limit=30):
        """Seconds to the first answer: from starting the proxies, and from the last one's `exec`."""
        request, begin = b"GET /b/1024 HTTP/1.1\r\nHost: bench.local\r\n\r\n", time.monotonic()
        self.start(wait=False)
        while time.monotonic() - begin < limit:
            try:
                with self.machine.inside(self.client_ns):
                    sock = socket.create_connection(self.front, 3)
                with sock:
                    sock.sendall(request)
                    if b" 200 OK" in sock.recv(4096):
                        end = time.monotonic()
                        return end - begin, end - self.machine.last_executed()
            except OSError:
                pass
            time.sleep(0.0005)
        raise RuntimeError("no answer within %d s" % limit)


def start_backend(machine, namespace, ip):
    ports = (("--http", sc.HTTP), ("--h2", sc.H2), ("--stream", sc.STREAM), ("--echo", sc.ECHO),
             ("--source", sc.SOURCE), ("--sink", sc.SINK))
    arguments = [word for option, port in ports for word in (option, str(port))]
    process = machine.spawn([machine.path("wbtool"), "backend", "--bind", ip, *arguments], namespace, machine.load_cpu)
    machine.wait_listening(process, sc.SINK)
    return process
