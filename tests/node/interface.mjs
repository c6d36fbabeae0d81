// The groups of interface-ipfs-core that are about content, against one or two programs with Kubo's command line:
//
//   node interface.mjs FIRST [SECOND] [GROUP...]
//
// FIRST is judged by SECOND: a test that fails with FIRST and passes with SECOND fails the run. Without SECOND every
// failure does. A program is started on its own folder for each group of tests (`init`, `config`, `daemon`); README.md
// beside this file says how the modules are installed.

import { spawn, execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync, existsSync, statSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import EchoServer from 'aegir/echo-server'
import { create } from 'ipfs-http-client'
import * as suites from 'interface-ipfs-core'
import Mocha from 'mocha'

const GROUPS = ['root', 'block', 'dag', 'pin', 'repo']
/** Longest a program takes to answer, in milliseconds. */
const START_LIMIT = 30_000
/** Longest a test takes that names no limit of its own, in milliseconds. */
const TEST_LIMIT = 40_000

/** What the suite's own clients skip: a request whose answer is read while its body is sent. */
const SKIPPED = ['should support bidirectional streaming', 'should error during add-all stream']

/** A port nobody listens on. */
const port = () => new Promise((done, fail) => {
  const server = createServer().once('error', fail).listen(0, '127.0.0.1', () => {
    const { port } = server.address()
    server.close(() => done(port))
  })
})

/** Starts programs as the suites ask for them, and ends them. */
class Factory {
  #program
  #running = []

  constructor (program) { this.#program = program }

  async spawn () {
    const folder = mkdtempSync(join(tmpdir(), 'interface-'))
    const env = { ...process.env, IPFS_PATH: folder }
    execFileSync(this.#program, ['init', '--empty-repo'], { env, stdio: 'ignore' })
    const [api, gateway, swarm] = [await port(), await port(), await port()]
    const path = join(folder, 'config')
    const config = JSON.parse(readFileSync(path))
    config.Addresses.API = `/ip4/127.0.0.1/tcp/${api}`
    config.Addresses.Gateway = `/ip4/127.0.0.1/tcp/${gateway}`
    config.Addresses.Swarm = [`/ip4/127.0.0.1/tcp/${swarm}`]
    config.Bootstrap = []
    config.Discovery = { MDNS: { Enabled: false } }
    config.AutoConf = { Enabled: false }
    config.DNS = { Resolvers: {} }
    config.Routing = { ...config.Routing, Type: 'none', DelegatedRouters: [] }
    config.Ipns = { ...config.Ipns, DelegatedPublishers: [] }
    writeFileSync(path, JSON.stringify(config))
    const child = spawn(this.#program, ['daemon'], { env, stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.on('data', text => { said = (said + text).slice(-4000) })
    const ended = new Promise(done => child.once('exit', done))
    this.#running.push({ child, ended, folder })
    const client = create({ url: `http://127.0.0.1:${api}` })
    const limit = Date.now() + START_LIMIT
    for (;;) {
      const peer = await client.id().catch(() => undefined)
      if (peer) return { api: client, peer, clean: () => this.clean() }
      if (Date.now() > limit || child.exitCode !== null) throw new Error(`${this.#program} does not answer: ${said}`)
      await new Promise(done => setTimeout(done, 20))
    }
  }

  async clean () {
    for (const { child, ended, folder } of this.#running.splice(0)) {
      child.kill('SIGKILL')
      await ended
      rmSync(folder, { recursive: true, force: true, maxRetries: 10 })
    }
  }
}

/** The outcome of each test, by its full title. */
const outcomes = async (program, groups) => {
  const factory = new Factory(program)
  const mocha = new Mocha({ reporter: class {}, timeout: TEST_LIMIT })
  mocha.suite.emit('pre-require', globalThis, null, mocha)
  for (const group of groups) {
    if (!suites[group]) throw new Error(`interface-ipfs-core has no group ${group}`)
    for (const part of Object.keys(suites[group])) {
      // `pin remote` wants a pinning service beside the program
      if (part !== 'remote') suites[group][part](factory, { skip: SKIPPED })
    }
  }
  const found = new Map()
  await new Promise(done => {
    const runner = mocha.run(done)
    const note = (test, error) => {
      found.set(test.fullTitle(), error)
      if (process.env.VERBOSE) console.error(`${test.duration ?? 0} ms   ${test.fullTitle()}   ${error}`)
    }
    runner.on('pass', test => note(test, ''))
    runner.on('fail', (test, error) => note(test, String(error.message ?? error).split('\n')[0] || 'failed'))
    runner.on('pending', test => note(test, 'skipped by the suite'))
  })
  await factory.clean()
  return found
}

const isProgram = word => word.includes('/') && existsSync(word) && statSync(word).isFile()
const words = process.argv.slice(2)
const programs = words.filter(isProgram).map(word => resolve(word))
const groups = words.filter(word => !isProgram(word))
if (programs.length < 1 || programs.length > 2) {
  console.error('usage: node interface.mjs FIRST [SECOND] [GROUP...], where FIRST and SECOND are paths of programs')
  process.exit(2)
}
// what the suite adds by URL
const echo = new EchoServer()
await echo.start()
process.env.ECHO_SERVER = `http://${echo.host}:${echo.port}`
const results = []
for (const program of programs) results.push(await outcomes(program, groups.length ? groups : GROUPS))
const [first, second] = results
const passes = found => [...found.values()].filter(error => error === '').length
let worse = 0
for (const [title, error] of first) {
  if (error === '' || error === 'skipped by the suite') continue
  const other = second?.get(title)
  if (other !== undefined && other !== '') console.log(`both     ${title}: ${error}`)
  else {
    worse += 1
    console.log(`FAILED   ${title}: ${error}`)
  }
}
for (const [title, error] of second ?? []) {
  if (error !== '' && first.get(title) === '') console.log(`first alone passes   ${title}: ${error}`)
}
await echo.stop()
for (const at in programs) console.log(`${programs[at]}: ${passes(results[at])} of ${results[at].size} pass`)
process.exit(worse ? 1 : 0)
