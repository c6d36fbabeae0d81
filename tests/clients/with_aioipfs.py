"""aioipfs, pointed at the IPFS proxy."""

import asyncio
import json
import os
import sys
import tempfile
from urllib.parse import urlparse

import aioipfs
from steps import tell, worded


async def main(url):
    parts = urlparse(url)
    client = aioipfs.AsyncIPFS(maddr="/ip4/%s/tcp/%d" % (parts.hostname, parts.port))

    async def step(name, action):
        try:
            result = await asyncio.wait_for(action(), 30)
            value, result = result if isinstance(result, tuple) else (result, result)
            tell(name, True, value)
            return result
        except Exception as error:
            tell(name, False, worded(error))

    async def all_of(items):
        return [item async for item in items]

    async def identity():
        found = await client.id()
        return [found["ID"].startswith("12D3"), len(found["Addresses"]) > 0]

    async def version():
        return (await client.version())["Version"]

    async def add_bytes():
        added = await client.add_bytes(b"hello clients\n")
        return [added["Hash"], added["Size"]], added["Hash"]

    async def add_folder():
        with tempfile.TemporaryDirectory() as folder:
            root = os.path.join(folder, "a")
            os.makedirs(os.path.join(root, "b"))
            for path in ["x.txt", "y.txt", "b/z.txt"]:
                with open(os.path.join(root, path), "w") as out:
                    out.write("a/" + path)
            added = await all_of(client.add(root, recursive=True, cid_version=1))
        shown = sorted("%s %s" % (entry["Name"], entry["Hash"]) for entry in added)
        return shown, next(entry["Hash"] for entry in added if entry["Name"] == "a")

    async def temporary(content, use):
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            out.write(content)
            out.flush()
            return await use(out.name)

    await step("id", identity)
    await step("version", version)
    file = await step("add file", add_bytes)
    folder = await step("add folder", add_folder)

    async def cat():
        return (await client.cat(file)).decode()

    async def ls():
        listed = await client.ls(folder)
        return sorted(link["Name"] for link in listed["Objects"][0]["Links"])

    async def block_put():
        put = await temporary(b"a block", lambda path: client.block.put(path))
        return [put["Key"], put["Size"]], put["Key"]

    await step("cat", cat)
    await step("ls", ls)
    block = await step("block put", block_put)

    async def block_get():
        return (await client.block.get(block)).decode()

    async def dag_put():
        put = await temporary(b'{"hello": "dag"}', lambda path: client.dag.put(path))
        return put["Cid"]["/"]

    await step("block get", block_get)
    node = await step("dag put", dag_put)

    async def dag_get():
        got = await client.dag.get(node)
        return json.loads(got) if isinstance(got, (str, bytes)) else got

    async def pin_ls():
        return sorted((await client.pin.ls())["Keys"])

    async def pin_ls_one():
        return (await client.pin.ls(file))["Keys"]

    async def pin_rm():
        return (await client.pin.rm(file))["Pins"]

    async def pin_add():
        return (await all_of(client.pin.add(file)))[-1].get("Pins")

    async def pin_add_name():
        await all_of(client.pin.add(node, name="named"))
        return (await client.pin.ls(node, names=True))["Keys"]

    async def pin_update():
        return (await client.pin.update(file, folder)).get("Pins")

    async def repo_stat():
        stat = await client.repo.stat()
        return [stat["RepoSize"] > 0, stat["StorageMax"] > 0, sorted(stat)]

    async def repo_gc():
        return len(await all_of(client.repo.gc())) >= 0

    async def mfs():
        await temporary(b"written", lambda path: client.files.write("/aioipfs", path, create=True))
        return (await client.files.read("/aioipfs")).decode()

    for name, action in [
        ("dag get", dag_get),
        ("pin ls", pin_ls),
        ("pin ls of one", pin_ls_one),
        ("pin rm", pin_rm),
        ("pin add", pin_add),
        ("pin add with a name", pin_add_name),
        ("pin update", pin_update),
        ("pin ls after update", pin_ls),
        ("repo stat", repo_stat),
        ("repo gc", repo_gc),
        ("files", mfs),
    ]:
        await step(name, action)
    await client.close()


asyncio.run(main(sys.argv[1]))
