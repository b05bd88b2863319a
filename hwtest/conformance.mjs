// Runs the public suite http-tests/cache-tests, the npm package or its sources,
// against a forward proxy:
//
//   node conformance.mjs <suite's directory> <URL of its server> <URL of the proxy> [test id]...
//
// It prints one JSON object: for each test its kind ("required", "optimal" or
// "check"), whether it passed, and why not. As on the suite's site, a test whose
// dependency failed has not passed.
import { existsSync } from 'node:fs'
import http from 'node:http'
import { createRequire } from 'node:module'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const [suite, base, proxy, ...only] = process.argv.slice(2)
const load = async file => import(pathToFileURL(path.resolve(suite, file)))
const require = createRequire(path.resolve(suite, 'package.json'))
const sources = existsSync(path.resolve(suite, 'test-engine'))

// The suite's clients do not heed http_proxy: the sources use Node's own fetch,
// the package node-fetch 2, which ends in http.request.
function throughUndici () {
  const undici = require('undici')
  const toProxy = () => new undici.ProxyAgent({ uri: proxy, proxyTunnel: false })
  undici.setGlobalDispatcher(toProxy())
  undici.Agent = function () { return toProxy() } // tests of interim responses make their own
}

function throughRequest () {
  const direct = http.request
  const { hostname, port } = new URL(proxy)
  http.request = (options, done) => direct({
    ...options, host: hostname, hostname, port, path: options.href, headers: { ...options.headers, Host: options.host }
  }, done)
}

// Every kind of test that the suite gives to a cache outside a browser.
async function choose () {
  const suites = [...(await load('tests/index.mjs')).default]
  if (!sources) suites.push((await load('tests/surrogate-control.mjs')).default)
  const wanted = t => !t.browser_only && (only.length === 0 || only.includes(t.id))
  return suites.map(s => ({ ...s, tests: s.tests.filter(wanted) })).filter(s => s.tests.length > 0)
}

async function run (tests) {
  if (sources) {
    throughUndici()
    const runner = await load('test-engine/client/runner.mjs')
    await runner.runTests(tests, false, base)
    return runner.getResults()
  }
  throughRequest()
  const runner = await load('client/runner.mjs')
  await runner.runTests(tests, require('node-fetch'), false, base)
  return runner.getResults()
}

const tests = await choose()
if (only.length > 0) tests.forEach(s => s.tests.forEach(t => { t.dump = true }))
const results = await run(tests)
const byID = new Map(tests.flatMap(s => s.tests).map(t => [t.id, t]))

function why (id) {
  const result = results[id]
  if (result !== true) return result === undefined ? 'not run' : result.join(': ')
  const failed = (byID.get(id).depends_on || []).find(d => byID.has(d) && why(d) !== '')
  return failed ? `depends on ${failed}` : ''
}

const out = {}
for (const [id, test] of byID) out[id] = { kind: test.kind || 'required', passed: why(id) === '', why: why(id) }
console.log(JSON.stringify(out, null, 1))
process.exit(0) // kept connections would hold it up
