"""wrk and h2load, asked and answering like `wbtool load`, for whoever would rather believe a load generator they know.

    known_load.py wrk|h2load --addr IP:PORT --host NAME --dur SECONDS --warm SECONDS [ARGUMENT…]

ARGUMENTs are the tool's own. It runs once to warm up and once to be measured: `START` and `END` are printed around the second run,
then a line of JSON with what it said. Whoever counts the load's CPU time has to count children of this process that have ended.
"""
import argparse
import json
import re
import subprocess
import sys
import time

UNITS = {"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6}
# For the reader of our output, who looks at this process once more.
LINGER = 0.3


def wrk(args, seconds):
    return ["wrk", "-t1", "--latency", "-d%ds" % max(1, round(seconds)), "-H", "Host: " + args.host, *args.own,
            "http://%s/b/1024" % args.addr]


def told_by_wrk(text):
    requests, duration, unit = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)", text).groups()
    errors = [int(n) for line in re.findall(r"Socket errors: .*|Non-2xx or 3xx responses: \d+", text)
              for n in re.findall(r"\d+", line.split(":", 1)[1])]
    said = dict(requests=int(requests), errors=sum(errors), rps=1e6 * int(requests) / (float(duration) * UNITS[unit]))
    for percent, value, unit in re.findall(r"^ +(50|90|99)% +([\d.]+)(us|ms|s|m)$", text, re.M):
        said["p%s_us" % percent] = float(value) * UNITS[unit]
    return said


def h2load(args, seconds):
    return ["h2load", "-t1", "-D%ds" % max(1, round(seconds)), "-H", ":authority: " + args.host, *args.own,
            "http://%s/b/1024" % args.addr]


def told_by_h2load(text):
    done = int(re.search(r"^requests: .* (\d+) done,", text, re.M).group(1))
    well = int(re.search(r"^status codes: (\d+) 2xx", text, re.M).group(1))
    return dict(requests=done, errors=max(0, done - well), rps=float(re.search(r"([\d.]+) req/s", text).group(1)))


TOOLS = {"wrk": (wrk, told_by_wrk), "h2load": (h2load, told_by_h2load)}


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit("%s: %s" % (" ".join(command), done.stderr or done.stdout))
    return done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("--addr", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--dur", type=float, required=True)
    parser.add_argument("--warm", type=float, required=True)
    args, args.own = parser.parse_known_args()
    command, told = TOOLS[args.tool]

    run(command(args, args.warm))
    print("START", flush=True)
    begin = time.monotonic()
    text = run(command(args, args.dur))
    end = time.monotonic()
    print("END", flush=True)
    time.sleep(LINGER)
    print(json.dumps(dict(told(text), bytes=0, dur=end - begin)), flush=True)


if __name__ == "__main__":
    main()
