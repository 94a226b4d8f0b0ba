import { expect, test } from 'bun:test'
import { dashboard } from './dashboard.ts'

const app = dashboard({ gateway: 'http://127.0.0.1:3000', monitor: 'http://127.0.0.1:3002' })

test('the page may run its own script and speak to gateway and monitor, and nothing else', async () => {
  const response = await app.request('/')
  expect(response.status).toBe(200)
  const policy = Object.fromEntries(
    (response.headers.get('Content-Security-Policy') ?? '').split('; ').map((directive) => {
      const [name, ...values] = directive.split(' ')
      return [name, values.join(' ')]
    }),
  )
  expect(policy).toEqual({
    'default-src': "'none'",
    'script-src': "'self'",
    'style-src': "'self'",
    'connect-src': "'self' http://127.0.0.1:3000",
    'img-src': 'data:',
    'form-action': "'none'",
    'base-uri': "'none'",
    'frame-ancestors': "'none'",
    'require-trusted-types-for': "'script'",
  })
})

test('the page has no inline script or style, and every file that it loads exists', async () => {
  const page = await (await app.request('/')).text()
  expect(page).not.toMatch(/<script(?![^>]* src=)|\son\w+=|\sstyle=|<style/)
  const loaded = [...page.matchAll(/(?:src|href)="(\/dashboard\/[^"]+)"/g)].map(([, path]) => path ?? '')
  expect(loaded).toHaveLength(2)
  for (const path of loaded) {
    const response = await app.request(path)
    expect(response.status).toBe(200)
    expect(response.headers.get('Content-Type')).toMatch(path.endsWith('.js') ? /^text\/javascript/ : /^text\/css/)
  }
})

test('the script sets text only, never HTML', async () => {
  const script = await (await app.request('/dashboard/page.js')).text()
  expect(script).not.toMatch(/innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(/)
})

test('a configured address cannot break out of its attribute', async () => {
  const page = await (await dashboard({ gateway: 'http://h/"><b>', monitor: 'http://m' }).request('/')).text()
  expect(page).not.toContain('"><b>')
})
