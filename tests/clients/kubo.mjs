// A JavaScript client of Kubo's RPC, pointed at the IPFS proxy: kubo-rpc-client or ipfs-http-client.

import { all, step, text, told, until } from './steps.mjs'

const [name, url] = process.argv.slice(2)
const { create, CID } = await import(name)
const ipfs = create({ url })
const encoder = new TextEncoder()

await step('id', async () => { const id = await ipfs.id(); return told([String(id.id).startsWith('12D3'), id.addresses.length > 0]) })
await step('version', async () => (await ipfs.version()).version)
const file = await step('add file', async () => {
  const added = await ipfs.add({ path: 'hello.txt', content: encoder.encode('hello clients\n') })
  return told([added.path, String(added.cid), added.size], added.cid)
})
const folder = await step('add folder', async () => {
  const entries = ['a/x.txt', 'a/y.txt', 'a/b/z.txt'].map(path => ({ path, content: encoder.encode(path) }))
  const added = await all(ipfs.addAll(entries, { cidVersion: 1 }))
  const shown = added.map(entry => `${entry.path} ${entry.cid} ${entry.size}`).sort()
  return told(shown, added.find(entry => entry.path === 'a')?.cid)
})
await step('add with progress', async () => {
  const seen = []
  await ipfs.add({ path: 'p', content: encoder.encode('p'.repeat(600_000)) }, { progress: n => seen.push(n) })
  return [seen.length > 1, seen.at(-1)]
})
await step('add only-hash', async () => String((await ipfs.add('hash alone', { onlyHash: true })).cid))
await step('cat', async () => await text(ipfs.cat(file)))
await step('ls', async () => (await all(ipfs.ls(folder))).map(entry => `${entry.name} ${entry.cid} ${entry.type}`))
await step('get', async () => (await text(ipfs.get(file))).includes('hello clients'))

const block = await step('block put', async () => {
  const cid = await ipfs.block.put(encoder.encode('a block'), { format: 'raw' })
  return told(String(cid), cid)
})
await step('block get', async () => Buffer.from(await ipfs.block.get(block)).toString())
await step('block stat', async () => (await ipfs.block.stat(block)).size)
const pinnedBlock = await step('block put, pinned', async () => {
  const cid = await ipfs.block.put(encoder.encode('a pinned block'), { format: 'raw', pin: true })
  return told(String(cid), cid)
})
const node = await step('dag put', async () => {
  const cid = await ipfs.dag.put({ hello: 'dag', link: file }, { storeCodec: 'dag-cbor', hashAlg: 'sha2-256' })
  return told(String(cid), cid)
})
await step('dag get', async () => (await ipfs.dag.get(node)).value.hello)
await step('dag put, pinned', async () => String(await ipfs.dag.put({ hello: 'pinned' }, { pin: true })))

const listed = async () => (await all(ipfs.pin.ls({ type: 'recursive' }))).map(pin => String(pin.cid)).sort()
await step('pin ls', listed)
await step('pin rm', async () => String(await ipfs.pin.rm(file)))
await step('pin add', async () => String(await ipfs.pin.add(file)))
await step('pin ls of one', async () => (await all(ipfs.pin.ls({ paths: file }))).map(pin => `${pin.cid} ${pin.type}`))
await step('pin add with a name', async () => {
  await ipfs.pin.add(node, { name: 'named' })
  return (await all(ipfs.pin.ls({ paths: node, names: true }))).map(pin => pin.name ?? pin.metadata?.name ?? '')
})
await step('pin ls by name', async () => {
  return (await all(ipfs.pin.ls({ name: 'named', names: true }))).map(pin => String(pin.cid))
})
await step('pin add direct', async () => {
  await ipfs.pin.add(block, { recursive: false })
  return (await all(ipfs.pin.ls({ paths: block }))).map(pin => pin.type)
})
await step('pin add of several', async () => (await all(ipfs.pin.addAll([{ cid: folder }, { cid: file }]))).map(String))
await step('pin rm of what is not pinned', async () => String(await ipfs.pin.rm(CID.parse('QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn'))))
await step('pin ls after rm', async () => {
  for (const cid of [folder, node, block, pinnedBlock]) await ipfs.pin.rm(cid)
  return until(async () => (await listed()).length > 0 && 'listed')
})

await step('repo stat', async () => {
  const stat = await ipfs.repo.stat()
  return [Number(stat.repoSize) > 0, Number(stat.storageMax) > 0, stat.version !== undefined]
})
await step('repo gc', async () => Array.isArray(await all(ipfs.repo.gc())))
await step('files', async () => {
  await ipfs.files.write('/f', encoder.encode('written'), { create: true })
  return await text(ipfs.files.read('/f'))
})
await step('config', async () => typeof await ipfs.config.get('Addresses.API'))
process.exit(0)
