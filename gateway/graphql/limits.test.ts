import { expect, test } from 'bun:test'
import { createLog } from '@posta/common/service/log.ts'
import { getIntrospectionQuery, parse } from 'graphql'
import { createSchema, createYoga } from 'graphql-yoga'
import { maskError, maskValidationErrors } from './errors.ts'
import { documentCaches, limits } from './limits.ts'

function start(options = { production: false }) {
  const asked: string[] = []
  const ask = (_: unknown, { id }: { id: string }) => asked.push(id)
  const mask = maskError(createLog('test', 'silent'), { suggestions: !options.production })
  const yoga = createYoga({
    schema: createSchema({
      typeDefs: 'type Query { one: Int, it: Query } type Mutation { ask(id: String): Int }',
      resolvers: { Query: { one: () => 1, it: () => ({}) }, Mutation: { ask } },
    }),
    logging: false,
    graphiql: false,
    parserAndValidationCache: documentCaches(),
    maskedErrors: { maskError: mask },
    plugins: [limits({ introspection: !options.production }), maskValidationErrors(mask)],
  })
  return {
    asked,
    async messages(query: string): Promise<string[]> {
      const response = await yoga.fetch('http://gateway.test/graphql', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ query }),
      })
      const { errors = [] } = (await response.json()) as { errors?: { message: string }[] }
      return errors.map(({ message }) => message)
    },
  }
}

const TOO_MANY_ROOTS = 'A query may have at most 10 fields at its root.'
const asks = (count: number) => Array.from({ length: count }, (_, n) => `a${n}: ask(id: "${n}")`).join(' ')

test('a mutation has at most ten fields at its root, those in fragments counted', async () => {
  const { messages, asked } = start()
  expect(await messages(`mutation { ${asks(10)} }`)).toEqual([])
  expect(asked.splice(0)).toHaveLength(10)
  expect(await messages(`mutation { ${asks(11)} }`)).toEqual([TOO_MANY_ROOTS])
  expect(await messages(`mutation { ... { ... on Mutation { ${asks(11)} } } }`)).toEqual([TOO_MANY_ROOTS])
  expect(await messages(`mutation { ...A } fragment A on Mutation { ...B } fragment B on Mutation { ${asks(11)} }`)) //
    .toEqual([TOO_MANY_ROOTS])
  expect(asked).toEqual([])
})

test('a query has at most 250 fields, those of a fragment counted wherever it is spread', async () => {
  const { messages } = start()
  const doubled = (levels: number) =>
    Array.from(
      { length: levels },
      (_, n) => `fragment F${n} on Query { a: it { ...F${n + 1} } b: it { ...F${n + 1} } }`,
    )
  const asking = (levels: number) => `{ ...F0 } ${doubled(levels).join(' ')} fragment F${levels} on Query { one }`
  expect(await messages(asking(6))).toEqual([])
  expect(await messages(asking(7))).toEqual(['A query may have at most 250 fields.'])
  expect(await messages(asking(40))).toContain('A query may have at most 250 fields.')
})

test('tools can read the schema by introspection, outside of production', async () => {
  const query = getIntrospectionQuery({ specifiedByUrl: true, schemaDescription: true, inputValueDeprecation: true })
  expect(await start().messages(query)).toEqual([])
})

test('a fragment that is spread within itself is refused', async () => {
  const [message] = await start().messages('{ ...A } fragment A on Query { it { ...A } }')
  expect(message).toBe('Cannot spread fragment "A" within itself.')
})

test('a document with too many tokens is refused by the parser', async () => {
  const { messages } = start()
  for (const query of [
    `{ ${'one '.repeat(15_000)} }`,
    `{ ${'a '.repeat(30_000)} }`,
    `{ one(a: ${'['.repeat(60_000)}) }`,
  ]) {
    const [message, ...more] = await messages(query)
    expect(message).toMatch(/^Syntax Error: Document contains more .*2000 tokens/)
    expect(more).toEqual([])
  }
})

test('the caches of documents are bounded by their length, however many documents arrive', () => {
  const { documentCache, errorCache } = documentCaches()
  for (let n = 0; n < 50; n++) {
    const document = `{ one } # ${n} ${'x'.repeat(60_000)}`
    documentCache.set(document, parse(document))
    errorCache.set(document, new Error('none'))
  }
  for (const { calculatedSize, size } of [documentCache, errorCache]) {
    expect(calculatedSize).toBeLessThanOrEqual(200_000)
    expect(size).toBe(3)
  }
})

test('production tells nothing of the schema, not even by completing a name', async () => {
  const { messages } = start({ production: true })
  expect(await messages('{ ome }')).toEqual(['Cannot query field "ome" on type "Query".'])
  expect(await messages('{ __schema { types { name } } }')).not.toEqual([])
  expect(await start().messages('{ ome }')).toEqual(['Cannot query field "ome" on type "Query". Did you mean "one"?'])
})
