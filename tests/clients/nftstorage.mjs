// @nftstorage/ipfs-cluster, pointed at the REST API.

import { Cluster } from '@nftstorage/ipfs-cluster'
import { step, told, until } from './steps.mjs'

const cluster = new Cluster(process.argv[2])
const named = (name, content) => new File([content], name)

await step('id', async () => { const info = await cluster.info(); return [info.id.startsWith('12D3'), info.version] })
await step('version', () => cluster.version())
const file = await step('add file', async () => {
  const added = await cluster.add(named('hello.txt', 'hello clients\n'), { name: 'hello', metadata: { a: 'b' } })
  return told([added.name, added.cid, added.size], added.cid)
})
const folder = await step('add folder', async () => {
  const added = await cluster.addDirectory([named('a/x.txt', 'x'), named('a/y.txt', 'y')])
  return told(added.map(entry => `${entry.name} ${entry.cid}`), added.at(-1)?.cid)
})
await step('status', () => until(async () => {
  const status = await cluster.status(file)
  const states = Object.values(status.peerMap).map(peer => peer.status)
  return states.every(state => state === 'pinned') && [status.name, ...states]
}))
await step('status of all', async () => (await cluster.statusAll({ filter: 'pinned' })).length > 1)
await step('status of some', async () => (await cluster.statusAll({ cids: [file] })).map(status => String(status.cid)))
await step('allocation', async () => {
  const pin = await cluster.allocation(file)
  return [String(pin.cid), pin.name, pin.metadata, pin.type, pin.replicationFactorMin]
})
await step('unpin', async () => (await cluster.unpin(file)).name)
await step('status of what is not pinned', async () => Object.values((await cluster.status(file)).peerMap).map(peer => peer.status))
await step('pin', async () => {
  const pin = await cluster.pin(file, { name: 'again', metadata: { k: 'v' }, origins: [] })
  return [String(pin.cid), pin.name, pin.metadata, pin.mode]
})
await step('pin update', async () => {
  const pin = await cluster.pin(folder, { update: file, name: 'updated' })
  return [String(pin.cid), pin.name]
})
await step('pin a path', async () => String((await cluster.pin(`/ipfs/${folder}`)).cid))
await step('unpin a path', async () => String((await cluster.unpin(`/ipfs/${folder}`)).cid))
await step('recover', async () => typeof (await cluster.recover(file)).peerMap)
await step('metric names', async () => (await cluster.metricNames()).sort())
await step('peers', async () => (await cluster.peerList()).length)
await step('a bad CID', () => cluster.status('x'))
await step('unpin what is not pinned', () => cluster.unpin('QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn'))
process.exit(0)
