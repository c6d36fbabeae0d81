"""Starts a daemon and a peer on free ports, runs schemathesis over both faces, and looks at the peer afterwards."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what, holds, limit=60):
    end = time.monotonic() + limit
    while not holds():
        if time.monotonic() > end:
            sys.exit("never within %d s: %s" % (limit, what))
        time.sleep(0.1)


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status < 300
    except OSError:
        return False


def start_daemon(work):
    """A Kubo without a network, or the fake daemon; the process and its address."""
    kubo = os.environ.get("KUBO")
    if not kubo:
        fake = subprocess.Popen([os.environ["FAKE"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return fake, fake.stdout.readline().strip()
    port, env = free_port(), dict(os.environ, IPFS_PATH=str(work / "kubo"))
    subprocess.run([kubo, "init", "--profile=test"], env=env, check=True, stdout=subprocess.DEVNULL)
    address = "/ip4/127.0.0.1/tcp/%d" % port
    subprocess.run([kubo, "config", "Addresses.API", address], env=env, check=True)
    subprocess.run([kubo, "config", "Addresses.Gateway", ""], env=env, check=True)
    log = open(work / "kubo.log", "w")
    daemon = subprocess.Popen([kubo, "daemon", "--offline"], env=env, stdout=log, stderr=log)
    wait_for("the daemon listens", lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
    return daemon, address


def start_peer(work, daemon):
    """The peer's process and the addresses of its faces."""
    service, folder = os.environ["SERVICE"], work / "peer"
    subprocess.run([service, "--config", str(folder), "init"], check=True, stdout=subprocess.DEVNULL)
    path = folder / "service.json"
    config = json.loads(path.read_text())
    rest, pinsvc = free_port(), free_port()
    config["cluster"]["listen_multiaddress"] = ["/ip4/127.0.0.1/tcp/0"]
    config["cluster"]["mdns_interval"] = "0s"
    config["api"]["restapi"]["http_listen_multiaddress"] = "/ip4/127.0.0.1/tcp/%d" % rest
    config["api"]["pinsvcapi"]["http_listen_multiaddress"] = "/ip4/127.0.0.1/tcp/%d" % pinsvc
    config["api"].pop("ipfsproxy")
    config["ipfs_connector"]["ipfshttp"]["node_multiaddress"] = daemon
    path.write_text(json.dumps(config))
    log = open(work / "peer.log", "w")
    peer = subprocess.Popen([service, "--config", str(folder), "daemon"], stdout=log, stderr=log)
    faces = ["http://127.0.0.1:%d" % port for port in (rest, pinsvc)]
    wait_for("the peer answers", lambda: answers(faces[0] + "/id"))
    return peer, faces


def memory(peer):
    status = pathlib.Path("/proc/%d/status" % peer.pid)
    lines = status.read_text().splitlines() if status.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("VmHWM")), "unknown")


def main():
    work, cases = pathlib.Path(sys.argv[1]), sys.argv[2]
    only = sys.argv[3:]
    for name in ("kubo", "peer"):
        shutil.rmtree(work / name, ignore_errors=True)
    here = pathlib.Path(__file__).parent
    daemon, address = start_daemon(work)
    peer, failed = None, []
    try:
        peer, faces = start_peer(work, address)
        for face in faces:
            command = [
                str(work / "venv/bin/schemathesis"), "run", face + "/openapi.json", "--url", face,
                "--checks", ",".join(CHECKS), "--max-examples", cases,
                "--phases", "examples,coverage,fuzzing", "--generation-database", "none",
                "--suppress-health-check", "all", "--request-timeout", "60", "--continue-on-failure", *only,
            ]
            env = dict(os.environ, SCHEMATHESIS_HOOKS="hooks", PYTHONPATH=str(here))
            if subprocess.run(command, env=env, cwd=work).returncode:
                failed.append("%s: see above" % face)
        if peer.poll() is not None or not all(answers(face + "/health") for face in faces):
            failed.append("the peer does not answer any more")
        print("most memory of the peer: %s" % memory(peer))
    finally:
        for process in (peer, daemon):
            if process and process.poll() is None:
                process.terminate()
                process.wait(60)
    log = (work / "peer.log").read_text(errors="replace")
    failed += [line for line in log.splitlines() if "panicked" in line][:10]
    sys.exit("\n".join(failed) if failed else 0)


# Left out are checks of what is the reference's to decide: it answers unknown methods with 404 or 405 by its table of
# routes and takes wrong values where nobody reads them. Whether a 500 is a failure of ours is the business of hooks.py.
CHECKS = [
    "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "no_failure_of_ours",
]

if __name__ == "__main__":
    main()
