"""ipfshttpclient, pointed at the IPFS proxy. Its `connect` refuses daemons from 0.8 on; the client itself works."""

import io
import sys
from urllib.parse import urlparse

import ipfshttpclient
from steps import step

parts = urlparse(sys.argv[1])
address = "/ip4/%s/tcp/%d/http" % (parts.hostname, parts.port)

step("connect", lambda: str(ipfshttpclient.connect(address)))
client = ipfshttpclient.Client(address, timeout=30)


def identity():
    found = client.id()
    return [found["ID"].startswith("12D3"), len(found["Addresses"]) > 0]


def add_folder():
    import os
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        root = os.path.join(folder, "a")
        os.makedirs(os.path.join(root, "b"))
        for path in ["x.txt", "y.txt", "b/z.txt"]:
            with open(os.path.join(root, path), "w") as out:
                out.write("a/" + path)
        added = client.add(root, recursive=True, cid_version=1)
    shown = sorted("%s %s" % (entry["Name"], entry["Hash"]) for entry in added)
    return shown, next(entry["Hash"] for entry in added if entry["Name"] == "a")


def repo_stat():
    stat = client.repo.stat()
    return [stat["RepoSize"] > 0, stat["StorageMax"] > 0, sorted(stat.as_json())]


step("id", identity)
step("version", lambda: client.version()["Version"])
file = step("add file", lambda: client.add_bytes(b"hello clients\n"))
folder = step("add folder", add_folder)
step("add json", lambda: client.add_json({"a": 1}))
step("cat", lambda: client.cat(file).decode())
step("ls", lambda: sorted(link["Name"] for link in client.ls(folder)["Objects"][0]["Links"]))
block = step("block put", lambda: (client.block.put(io.BytesIO(b"a block")).as_json(),) * 2)
step("block get", lambda: client.block.get(block["Key"]).decode())
node = step("dag put", lambda: client.dag.put(io.BytesIO(b'{"hello": "dag"}')).as_json()["Cid"]["/"])
step("dag get", lambda: client.dag.get(node).as_json())
step("pin ls", lambda: sorted(client.pin.ls(type="recursive")["Keys"].as_json()))
step("pin ls of one", lambda: client.pin.ls(file)["Keys"].as_json())
step("pin rm", lambda: client.pin.rm(file)["Pins"])
step("pin add", lambda: client.pin.add(file)["Pins"])
step("pin update", lambda: client.pin.update(file, folder)["Pins"])
step("pin ls after update", lambda: sorted(client.pin.ls(type="recursive")["Keys"].as_json()))
step("repo stat", repo_stat)
step("repo gc", lambda: len(client.repo.gc()) >= 0)
