"""Kubo's own `ipfs pin remote`, pointed at the pinning service."""

import json
import os
import subprocess
import sys

from steps import step

url, token = sys.argv[1:]


def ipfs(*command, given=None):
    done = subprocess.run(
        [os.environ["KUBO_BIN"], *command], input=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().split("\n")[-1])
    return done.stdout.strip()


def added(n):
    return ipfs("add", "-Q", "--pin=false", given="remote %d\n" % n)


def listed(*more):
    lines = ipfs("pin", "remote", "ls", "--service=here", "--status=queued,pinning,pinned,failed", *more).split("\n")
    return sorted(line.replace("\t", " ") for line in lines if line)


def many():
    for n in range(25):
        ipfs("pin", "remote", "add", "--service=here", "--background", "--name=n%d" % n, added(n))
    return 25


def listed_by_pages():
    names = [line.split(" ")[-1] for line in listed()]
    return [len(names), len(set(names))]


def counts():
    services = json.loads(ipfs("pin", "remote", "service", "ls", "--stat", "--enc=json"))
    return sum(services["RemoteServices"][0]["Stat"]["PinCount"].values())


def removed_all():
    ipfs("pin", "remote", "rm", "--service=here", "--status=queued,pinning,pinned,failed", "--force")
    return listed()


step("service add", lambda: ipfs("pin", "remote", "service", "add", "here", url, token))
step("service ls", lambda: ipfs("pin", "remote", "service", "ls").split()[0])
file = step("add file", lambda: added(1000))
step("add, and wait until it is pinned", lambda: ipfs("pin", "remote", "add", "--service=here", "--name=waited", file))
step("ls", lambda: listed())
step("ls by name", lambda: listed("--name=waited"))
step("ls by CID", lambda: listed("--cid=" + file))
step("ls of another status", lambda: ipfs("pin", "remote", "ls", "--service=here", "--status=failed"))
step("rm by name", lambda: ipfs("pin", "remote", "rm", "--service=here", "--name=waited", "--status=pinned"))
step("add 25", many)
step("ls of three pages", listed_by_pages)
step("counts", counts)
step("rm of all", removed_all)
