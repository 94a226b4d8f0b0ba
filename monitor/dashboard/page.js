// The dashboard. Everything from outside is set as text, never as HTML. Tokens are kept in this script's memory only.

const { gateway, monitor } = document.body.dataset
const SHOWN = 100
const POLL_MS = 3000
const MAX_PAUSE_MS = 10_000

const byId = (id) => document.getElementById(id)
const rowId = ({ id }) => `event-${id}`
const form = byId('sign-in')
const list = byId('list')

/** Of the user who is signed in; undefined while nobody is. */
let session

/** A problem that a service answered with, in its words. */
class Refused extends Error {
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

async function answered(response) {
  if (response.ok) return response
  const problem = await response.json().catch(() => ({}))
  throw new Refused(response.status, problem.detail ?? `The answer was ${response.status}.`)
}

async function post(path, body) {
  const response = await fetch(gateway + path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  })
  return answered(response)
}

/** Sends a request with the user's access token; where that has expired, again with a new one. */
async function ask(url, { signal, headers = {} }) {
  const asked = session
  const send = () => fetch(url, { signal, headers: { ...headers, Authorization: `Bearer ${asked.accessToken}` } })
  const response = await send()
  if (response.status !== 401) return answered(response)
  asked.refreshing ??= post('/auth/refresh', { refreshToken: asked.refreshToken })
    .then((refreshed) => refreshed.json())
    .then(({ accessToken, refreshToken }) => Object.assign(asked, { accessToken, refreshToken }))
    .finally(() => {
      asked.refreshing = undefined
    })
  await asked.refreshing
  signal.throwIfAborted()
  return answered(await send())
}

/** Shows the latest events: operators follow the stream, others ask for the list every few seconds. */
async function follow(signal) {
  let lastEventId
  let live
  for (let pauseMs = 1000; !signal.aborted; await pause(pauseMs, signal)) {
    try {
      if (live === undefined) {
        const { role } = await (await ask(`${gateway}/auth/me`, { signal })).json()
        live = role === 'operator'
      }
      if (live) {
        const headers = lastEventId === undefined ? {} : { 'Last-Event-ID': lastEventId }
        const stream = await ask('/events/stream', { signal, headers })
        // Only now, while the stream is open: so no event falls between the two.
        if (lastEventId === undefined) await load(signal)
        say('Live')
        pauseMs = 1000
        for await (const { event, id, data } of messagesIn(stream.body)) {
          lastEventId = id ?? lastEventId
          if (event === 'event') show([data])
          if (event === 'skipped') await load(signal)
        }
      } else {
        await load(signal)
        say(`Every ${POLL_MS / 1000} s`)
        pauseMs = POLL_MS
      }
    } catch (error) {
      if (signal.aborted) return
      if (error instanceof Refused && error.status === 403) {
        // The user is not an operator any more.
        live = false
        pauseMs = 0
      } else if (error instanceof Refused && error.status === 401) {
        leave('You were signed out. Sign in again.')
      } else {
        say('No answer; trying again')
        pauseMs = Math.min(MAX_PAUSE_MS, pauseMs * 2)
      }
    }
  }
}

async function load(signal) {
  const { items } = await (await ask('/events?limit=50', { signal })).json()
  show(items.toReversed())
}

/** The messages in a body of server-sent events. EventSource cannot send a token, so it is of no use here. */
async function* messagesIn(body) {
  // Not every browser can go through a stream with `for await`.
  const reader = body.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      const messages = (text + value).split('\n\n')
      text = messages.pop()
      for (const message of messages) {
        const fields = Object.fromEntries(
          [...message.matchAll(/^(event|id|data): ?(.*)$/gm)].map((line) => line.slice(1)),
        )
        if (fields.data !== undefined) yield { ...fields, data: JSON.parse(fields.data) }
      }
    }
  } finally {
    reader.cancel().catch(() => {})
  }
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener('abort', () => {
      clearTimeout(timer)
      resolve()
    })
  })
}

/**
 * Adds the events that are not in the list yet, the newest first. While paused it only keeps them.
 * @param events the newest last
 */
function show(events) {
  for (const event of events) session.seen.set(event.id, event)
  for (const id of session.seen.keys()) {
    if (session.seen.size <= SHOWN) break
    session.seen.delete(id)
  }
  if (session.paused) return
  for (const event of session.seen.values()) if (!byId(rowId(event))) addRow(event)
  while (list.children.length > SHOWN) list.lastElementChild.remove()
  session.seen.clear()
  byId('none').hidden = list.children.length > 0
}

/** What tells the many events of one operation apart: its step and what became of that, or the answer that was given. */
function detailOf({ data }) {
  const { step, status, signal } = data ?? {}
  return step === undefined ? (signal ?? '') : `${step}: ${status}`
}

function addRow(event) {
  const row = byId('event').content.firstElementChild.cloneNode(true)
  const at = new Date(event.time)
  row.id = rowId(event)
  row.dataset.ms = String(at.getTime())
  const time = row.querySelector('time')
  time.dateTime = event.time
  time.textContent = at.toLocaleTimeString(undefined, { hour12: false })
  row.querySelector('.type').textContent = event.type.replace(/^[^.]*\./, '')
  row.querySelector('.what').textContent = detailOf(event)
  row.querySelector('.whose').textContent = event.user ?? ''
  const facts = {
    Time: at.toLocaleString(),
    Event: event.id,
    User: event.user,
    Operation: event.operation,
    Message: `${event.topic}, partition ${event.partition}, offset ${event.offset}`,
    Chain: `${event.chain.name}, number ${event.chain.seq}`,
  }
  for (const [name, value] of Object.entries(facts)) {
    if (value === undefined) continue
    const term = document.createElement('dt')
    const description = document.createElement('dd')
    term.textContent = name
    description.textContent = value
    row.querySelector('dl').append(term, description)
  }
  row.querySelector('pre').textContent = JSON.stringify(event.data, null, 2)
  const older = [...list.children].find((other) => Number(other.dataset.ms) <= at.getTime())
  list.insertBefore(row, older ?? null)
}

function say(text) {
  if (byId('state').textContent !== text) byId('state').textContent = text
}

function enter(tokens, email) {
  session = { ...tokens, closing: new AbortController(), seen: new Map(), paused: false }
  byId('name').textContent = email
  for (const id of ['who', 'events']) byId(id).hidden = false
  byId('entrance').hidden = true
  byId('none').hidden = false
  byId('events-title').focus()
  follow(session.closing.signal)
}

function leave(why = '') {
  const { refreshToken, closing } = session
  closing.abort()
  session = undefined
  post('/auth/logout', { refreshToken }).catch(() => {})
  list.replaceChildren()
  say('')
  setPaused(false)
  for (const id of ['who', 'events']) byId(id).hidden = true
  byId('entrance').hidden = false
  byId('refusal').textContent = why
  byId('email').focus()
}

function setPaused(paused) {
  byId('pause').setAttribute('aria-pressed', String(paused))
  if (!session) return
  session.paused = paused
  if (!paused) show([])
}

form.addEventListener('submit', async (event) => {
  event.preventDefault()
  const submit = form.querySelector('button')
  const { email, password } = Object.fromEntries(new FormData(form))
  submit.disabled = true
  byId('refusal').textContent = ''
  try {
    enter(await (await post('/auth/login', { email, password })).json(), email)
    form.reset()
  } catch (error) {
    const elsewhere = location.origin !== new URL(monitor).origin ? ` Is this page open at ${monitor}?` : ''
    byId('refusal').textContent = error instanceof Refused ? error.message : `Gateway does not answer.${elsewhere}`
    byId('email').focus()
  } finally {
    submit.disabled = false
  }
})
byId('sign-out').addEventListener('click', () => leave())
byId('pause').addEventListener('click', () => setPaused(!session.paused))
