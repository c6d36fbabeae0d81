// ipfs-cluster-api, written for ipfs-cluster 0.10, pointed at the REST API.

import { createRequire } from 'node:module'
import { step, until } from './steps.mjs'

const clusterApi = createRequire(import.meta.url)('ipfs-cluster-api')
const { hostname, port } = new URL(process.argv[2])
const cluster = clusterApi(hostname, port, { protocol: 'http' })

await step('id', async () => { const id = await cluster.id(); return [id.id.startsWith('12D3'), id.version] })
await step('version', () => cluster.version())
await step('add file', () => cluster.add(Buffer.from('hello clients\n'), { name: 'hello' }))
await step('add folder', async () => {
  const files = ['x', 'y'].map(name => ({ path: `a/${name}`, content: Buffer.from(name) }))
  return cluster.add(files, { recursive: true })
})
// of the file: this client looks for it where answers have not had it since 0.12
const cid = 'Qma68DHqgmx8u8TJZnh4SzQYCv7k1p3Zz4SE8MdcQyxpa3'
await step('status', () => until(async () => {
  const { peer_map: peers } = await cluster.status(cid)
  const states = Object.values(peers).map(peer => peer.status)
  return states.every(state => state === 'pinned') && states
}))
await step('status of all', async () => shape(await cluster.status()))
await step('pin ls', async () => shape(await cluster.pin.ls()))
await step('pin ls by type', async () => shape(await cluster.pin.ls({ filter: 'pin' })))
await step('pin rm', async () => shape(await cluster.pin.rm(cid)))
await step('pin add', async () => { const pin = await cluster.pin.add(cid, { name: 'again', replication: 1 }); return [pin.name, pin.replication_factor_min] })
await step('recover', async () => shape(await cluster.recover(cid)))
await step('recover of all', async () => shape(await cluster.recover()))
await step('sync', async () => shape(await cluster.sync(cid)))
await step('peers', async () => shape(await cluster.peers.ls()))
await step('graph', async () => Object.keys(await cluster.health.graph()).sort())
await step('metrics', async () => (await cluster.health.metrics('ping')).map(metric => [metric.name, metric.valid]))
await step('a bad CID', () => cluster.status('x'))
process.exit(0)

// What came, without what differs from run to run.
function shape (value) {
  if (Array.isArray(value)) return ['list', ...value.slice(0, 1).map(shape)]
  if (Buffer.isBuffer(value)) return 'bytes'
  if (value !== null && typeof value === 'object') return Object.keys(value).sort()
  return typeof value
}
