// The pinning service's public compliance suite. Its report is kept as Markdown and a count; here it becomes steps.

import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const [url, token] = process.argv.slice(2)
const suite = dirname(fileURLToPath(import.meta.resolve('@ipfs-shipyard/pinning-service-compliance')))
const root = join(suite, '..', '..')

// The suite reads the published API from the network, unless it is given as a file.
if (process.env.PINNING_SPEC) {
  const path = join(suite, 'utils', 'constants.js')
  const source = readFileSync(path, 'utf8')
  writeFileSync(path, source.replace(/const specLocation = .*;/, `const specLocation = ${JSON.stringify(process.env.PINNING_SPEC)};`))
}

const run = spawnSync('node', [join(suite, 'index.js'), '-s', url, token], { cwd: root, encoding: 'utf8', timeout: 300_000 })
const names = ['no token', 'bad token', 'add', 'delete', 'list', 'replace', 'match', 'pages', 'delete all']
const lines = (run.stdout + run.stderr).split('\n').map(line => line.replace(/\x1b\[\d+m/g, ''))
// each check begins with its title and its expectations follow, each with its mark; the summary comes last
if (process.env.VERBOSE) console.error(lines.join('\n'))
const checks = []
for (const line of lines) {
  if (line.startsWith('Execution Date')) break
  const mark = /(🟢|❌|⚠️) (.*)/u.exec(line)
  if (/^\s*$/.test(line)) continue
  if (!mark && /^[^\s-].*/.test(line) && titles().some(title => title.test(line))) checks.push([])
  else if (mark && checks.length > 0) checks.at(-1).push([mark[1] === '🟢', steady(mark[2])])
}
names.forEach((name, n) => {
  const results = checks[n] ?? []
  const failed = results.filter(([ok]) => !ok).map(([, title]) => title)
  const ok = results.length > 0 && failed.length === 0
  console.log(JSON.stringify({ step: name, ok, value: ok ? results.length : failed.length > 0 ? failed : 'it did not run' }))
})

function titles () {
  return [/^Request with no authentication token/, /^Request with invalid token/, /^Pins post of CID/, /^Can create and then delete/,
    /^List pin objects/, /^Can create and replace/, /^Can create a pin with name/, /^Pagination: Get all pins/, /^Can delete all pins/]
}

function steady (title) {
  return title.replace(/bafk\w+/g, '<cid>').replace(/[0-9a-f-]{36}/g, '<name>').slice(0, 120)
}
