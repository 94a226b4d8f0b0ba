import { spyOn } from 'bun:test'
import { type Client, createClient } from '@libsql/client'

/** For tests: records every statement that the libSQL clients of this process run. */
export function recordStatements() {
  const client = createClient({ url: ':memory:' })
  const prototype: Client = Object.getPrototypeOf(client)
  client.close()
  const execute = spyOn(prototype, 'execute')
  const batch = spyOn(prototype, 'batch')

  return {
    /**
     * Stops recording. `unindexed`: the statements that read or sort a whole table, with SQLite's plan for them
     * (https://sqlite.org/eqp.html). `indexes`: the indexes of the schema that serve a statement.
     */
    async stop(url: string): Promise<{ unindexed: string[]; indexes: string[] }> {
      const all = [...execute.mock.calls.map(([each]) => each), ...batch.mock.calls.flatMap(([group]) => group)]
      execute.mockRestore()
      batch.mockRestore()
      const byText = new Map(
        all.flatMap((each) => (typeof each === 'object' && 'sql' in each ? [[each.sql, each]] : [])),
      )
      const client = createClient({ url })
      const plans: { text: string; plan: string }[] = []
      for (const [text, statement] of byText) {
        const { rows } = await client.execute({ ...statement, sql: `EXPLAIN QUERY PLAN ${text}` })
        plans.push({ text, plan: rows.map(({ detail }) => detail).join('; ') })
      }
      client.close()
      const unindexed = plans.filter(({ plan }) => isUnindexed(plan)).map(({ text, plan }) => `${text}\n${plan}`)
      const used = plans.flatMap(({ plan }) => [...plan.matchAll(/ INDEX ([a-z]\w+)/g)].map(([, name = '']) => name))
      return { unindexed, indexes: [...new Set(used)].filter((name) => !name.startsWith('sqlite_')).sort() }
    },
  }
}

/** Tables of few rows do not count, nor do the list of a `json_each`, the rows of a subquery, and rows that tie in an index. */
const isUnindexed = (plan: string) =>
  /\bSCAN (?!CONSTANT ROW|signing_keys|checkpoints|\(subquery|\w+ VIRTUAL TABLE|new\b)/.test(plan) ||
  (/TEMP B-TREE FOR (?!RIGHT PART)/.test(plan) && !/VIRTUAL TABLE|SCAN \(subquery/.test(plan))
