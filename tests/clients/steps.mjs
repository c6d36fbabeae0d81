// Steps of a client's test: each tells how it went, as a line of JSON, and the next one follows either way.

/** Runs `action` and prints what became of it. Gives its result, or undefined. */
export async function step (name, action) {
  try {
    const { value, result } = wrapped(await limited(action()))
    console.log(JSON.stringify({ step: name, ok: true, value }))
    return result
  } catch (error) {
    console.log(JSON.stringify({ step: name, ok: false, value: worded(error) }))
  }
}

/** A result of which only `value` is compared. */
export const told = (value, result) => ({ isTold: true, value, result })

/** All items of an asynchronous list. */
export async function all (items) {
  const out = []
  for await (const item of items) out.push(item)
  return out
}

/** The text of pieces. */
export async function text (pieces) {
  return Buffer.concat(await all(pieces)).toString()
}

/** Asks again until `look` gives something true. */
export async function until (look) {
  for (let n = 0; n < 100; n++) {
    const found = await look()
    if (found) return found
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  throw new Error('it did not come within 10 s')
}

const wrapped = result => result?.isTold ? result : { value: result ?? null, result }
const worded = error => String(error?.message ?? error).split('\n')[0]
const limited = promise => Promise.race([
  promise,
  new Promise((resolve, reject) => setTimeout(() => reject(new Error('no answer within 30 s')), 30_000).unref())
])
