import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import * as v from 'valibot'
import { type Answer, call, expectBody, graphql } from '../../tools/client.ts'
import { type System, startInProcess } from '../../tools/in-process.ts'
import { describeOnParts, type Parts } from '../testing/parts.ts'
import { newUser } from '../testing/users.ts'

const Succeeded = v.object({
  id: v.string(),
  status: v.literal('succeeded'),
  output: v.record(v.string(), v.unknown()),
})
const usdToArs = (amount: string) => ({ type: 'convert', input: { from: 'usd', to: 'ars', amount } })

describeOnParts(describe, (makeParts) => {
  describe('through the whole system', () => {
    let parts: Parts
    let urls: System

    beforeAll(async () => {
      parts = await makeParts()
      urls = await startInProcess(parts.environment)
    }, 60_000)
    afterAll(async () => {
      await urls.close()
      await parts.dispose()
    }, 60_000)

    const submit = (token: string, body: unknown): Promise<Answer> =>
      call('POST', `${urls.gatewayUrl}/operations`, { token, body, headers: { Prefer: 'wait=20' } })

    test('a conversion is answered once with the amount, the rate, its date and its source', async () => {
      const { token } = await newUser(urls.gatewayUrl)
      const answer = await submit(token, usdToArs('100.50'))

      const { output } = expectBody(answer, 200, Succeeded)
      expect(answer.headers.get('preference-applied')).toBe('wait=20')
      expect(output).toEqual({
        amount: expect.stringMatching(/^\d+\.\d\d$/),
        currency: 'ARS',
        rate: expect.stringMatching(/^\d+(\.\d+)?$/),
        date: expect.stringMatching(/^\d{4}-\d\d-\d\d$/),
        source: 'bundled',
      })
    }, 30_000)

    test('processor serves the table and the result of store-rates', async () => {
      const { token, id: user } = await newUser(urls.gatewayUrl)
      const { id, output } = expectBody(
        await submit(token, { type: 'store-rates', input: { base: 'eur' } }),
        200,
        Succeeded,
      )
      const rates = await call('GET', `${urls.processorUrl}/rates/eur`, { token })
      const table = expectBody(
        rates,
        200,
        v.object({
          base: v.literal('EUR'),
          date: v.string(),
          rates: v.array(v.object({ code: v.string(), rate: v.string() })),
        }),
      )
      expect(output).toEqual({ base: 'EUR', date: table.date, currencies: table.rates.length, source: 'bundled' })
      expect((await call('GET', `${urls.processorUrl}/results/${id}`, { token })).body).toMatchObject({
        id,
        user,
        status: 'succeeded',
      })
    }, 30_000)

    test('conversions of a day stop at the limit, and a refused one counts nothing', async () => {
      const { token } = await newUser(urls.gatewayUrl)
      expectBody(await submit(token, usdToArs('9999.99')), 200, Succeeded)
      const refused = await submit(token, usdToArs('0.02'))
      expect(refused).toMatchObject({ status: 200, body: { status: 'failed', error: { code: 'limit-exceeded' } } })
      expectBody(await submit(token, usdToArs('0.01')), 200, Succeeded)
      expect(await submit(token, usdToArs('0.00000001'))).toMatchObject({
        body: { status: 'failed', error: { code: 'limit-exceeded' } },
      })
    }, 30_000)

    describe('a conversion is refused for', () => {
      const convert = (input: Record<string, unknown>) => ({
        type: 'convert',
        input: { from: 'USD', to: 'ARS', amount: '1', ...input },
      })
      const badAmounts = [
        '-1',
        '0',
        '0.00',
        'NaN',
        'Infinity',
        '1e999',
        '1e2',
        '9'.repeat(400),
        '1,5',
        ' 1',
        '1 ',
        '1 000',
        '',
        '.5',
        '5.',
        '+1',
        '0x10',
        '1.123456789',
        '1234567890123456789',
        '٣',
        100,
        null,
        ['1'],
        { value: '1' },
      ]
      const cases: [string, unknown, number, string, string][] = [
        ...badAmounts.map((amount): [string, unknown, number, string, string] => [
          `the amount ${JSON.stringify(amount).slice(0, 20)}`,
          convert({ amount }),
          422,
          'invalid-input',
          '#/input/amount',
        ]),
        ['an unknown currency to convert to', convert({ to: 'XYZW' }), 422, 'unknown-currency', '#/input/to'],
        ['an unknown currency to convert from', convert({ from: 'XYZW' }), 422, 'unknown-currency', '#/input/from'],
        ['a currency that is a path', convert({ from: '../../etc' }), 422, 'invalid-input', '#/input/from'],
      ]
      test.each(cases)('%s', async (_name, body, status, code, pointer) => {
        const { token } = await newUser(urls.gatewayUrl)
        expect(await submit(token, body)).toMatchObject({ status, body: { code, errors: [{ pointer }] } })
        expect(await call('GET', `${urls.gatewayUrl}/operations`, { token })).toMatchObject({ body: { items: [] } })
      })

      test.each([
        ['amount: "-1"', 'to: "ARS"', 'invalid-input'],
        ['amount: "1"', 'to: "XYZW"', 'unknown-currency'],
        ['amount: 1', 'to: "ARS"', 'malformed-request'],
      ])('%s over GraphQL', async (amount, to, code) => {
        const { token } = await newUser(urls.gatewayUrl)
        const mutation = `mutation { convert(input: { from: "USD", ${to}, ${amount} }) { id } }`
        const { body } = await graphql(urls.gatewayUrl, mutation, {}, token)
        expect(body).toMatchObject({ errors: [{ extensions: { code } }] })
      })
    })
  })
})
