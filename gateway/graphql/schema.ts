import { collectNames, mutation, query, type ResolverPayload, resolver, subscription, weave } from '@gqloom/core'
import { asField, ValibotWeaver } from '@gqloom/valibot'
import { contracts } from '@posta/common/operations/catalog.ts'
import { RateSource } from '@posta/common/operations/rates.ts'
import { authenticate, type Caller, type TokenVerifier } from '@posta/common/service/auth.ts'
import type { Forbidden } from '@posta/common/service/forbidden.ts'
import { eventNetwork } from '@posta/common/service/network.ts'
import { encodeCursor } from '@posta/common/service/pages.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { GraphQLID, GraphQLNonNull, GraphQLScalarType, type GraphQLSchema } from 'graphql'
import * as v from 'valibot'
import type { Accounts } from '../accounts/accounts.ts'
import { Tokens } from '../accounts/credentials.ts'
import { Login } from '../accounts/login.ts'
import { Logout } from '../accounts/logout.ts'
import { Session } from '../accounts/own-sessions.ts'
import { Refresh } from '../accounts/refresh.ts'
import { Registration } from '../accounts/register.ts'
import { User } from '../accounts/user.ts'
import type { Waiters } from '../operations/await-outcome.ts'
import { describe, Operation, OperationProgress } from '../operations/operation.ts'
import type { Read } from '../operations/read.ts'
import type { Submit } from '../operations/submit.ts'
import type { Tell } from '../operations/tell.ts'

const MAX_FIRST = 100
const DEFAULT_FIRST = 20

/** `ship-order` is `shipOrder` here. */
const fieldName = (type: string) => type.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase())
const typeName = (type: string) => fieldName(type).replace(/^\w/, (letter) => letter.toUpperCase())

const Id = v.pipe(v.string(), asField({ type: new GraphQLNonNull(GraphQLID) }))
/** Its size is bounded by that of the body, and by the tokens of a document: see limits.ts. */
const GraphQLJson = new GraphQLScalarType({ name: 'JSON', description: 'Any JSON value.' })
const Json = v.pipe(v.unknown(), asField({ type: new GraphQLNonNull(GraphQLJson) }))
const { status, createdAt, completedAt } = Operation.entries
const OperationError = v.object({ code: v.string(), message: v.string() })
const OperationObject = v.object({
  id: Id,
  type: v.string(),
  status,
  error: v.nullish(OperationError),
  progress: v.nullish(v.array(OperationProgress)),
  createdAt,
  completedAt,
  // The output is in the field of the operation's type.
  ...Object.fromEntries(contracts.map(({ type, output }) => [fieldName(type), v.nullish(output)])),
})
const OperationEdge = v.object({ cursor: v.string(), node: OperationObject })
const PageInfo = v.object({
  hasNextPage: v.boolean(),
  hasPreviousPage: v.boolean(),
  startCursor: v.nullish(v.string()),
  endCursor: v.nullish(v.string()),
})
const OperationConnection = v.object({ edges: v.array(OperationEdge), pageInfo: PageInfo })

collectNames(
  { User, Role: User.entries.role, Tokens, Session },
  { RateSource }, // example
  { Operation: OperationObject, OperationStatus: status, OperationError, OperationEdge, OperationConnection, PageInfo },
  { OperationProgress, ProgressStatus: OperationProgress.entries.status },
  { RegisterInput: Registration, LoginInput: Login, RefreshInput: Refresh, LogoutInput: Logout },
)
for (const { type, input, output } of contracts)
  collectNames({ [`${typeName(type)}Input`]: input, [`${typeName(type)}Output`]: output })

export interface SchemaOptions {
  accounts: Accounts
  submit: Submit
  tell: Tell
  read: Read
  waiters: Waiters
  verify: TokenVerifier
  /** Called for each answer `forbidden`. */
  onForbidden: (request: Forbidden) => void
  /** Aborts when the service closes: subscriptions end. */
  closing: AbortSignal
}

/** GraphQL over the same functions as REST. Its types are made from the schemas that validate. */
export function createSchema(options: SchemaOptions): GraphQLSchema {
  const { accounts, submit, tell, read, waiters, verify, onForbidden, closing } = options
  const callerOf = (payload: Payload) => authenticate(contextOf(payload).authorization, verify)

  function noteForbidden(error: unknown, { user }: Caller, payload: Payload): never {
    const network = eventNetwork(contextOf(payload).address)
    if (error instanceof Problem && error.code === 'forbidden')
      onForbidden({ user, service: 'gateway', method: 'POST', route: '/graphql', network })
    throw error
  }

  const submissions = contracts.map((contract) => {
    const { type, input } = contract
    const field = mutation(OperationObject)
      .description(describe(contract))
      .input({ input, idempotencyKey: v.nullish(v.string()) })
      .resolve(async (args, payload) => {
        const { user, role } = await callerOf(payload)
        const submission = { type, input: args.input }
        return toObject(await submit({ user, role, submission, idempotencyKey: args.idempotencyKey ?? undefined }))
      })
    return [fieldName(type), field] as const
  })

  return weave(
    ValibotWeaver,
    resolver({
      register: mutation(User)
        .input({ input: Registration })
        .resolve(({ input }, payload) => {
          const { address, proof } = contextOf(payload)
          return accounts.register(input, { address, proof })
        }),
      login: mutation(Tokens)
        .input({ input: Login })
        .resolve(({ input }, payload) => accounts.logIn(input, contextOf(payload).address)),
      refresh: mutation(Tokens)
        .input({ input: Refresh })
        .resolve(({ input }, payload) => accounts.refresh(input, contextOf(payload).address)),
      logout: mutation(v.boolean())
        .description('Ends the session. True: it has ended, or there was none.')
        .input({ input: Logout })
        .resolve(async ({ input }, payload) => {
          await accounts.logOut(input, contextOf(payload).address)
          return true
        }),
      logoutEverywhere: mutation(v.boolean())
        .description('Ends all your sessions, this one too.')
        .resolve(async (_, payload) => {
          await accounts.logOutEverywhere(await callerOf(payload))
          return true
        }),
      endSession: mutation(v.boolean())
        .description('Ends one of your sessions.')
        .input({ id: Id })
        .resolve(async ({ id }, payload) => {
          await accounts.endSession(await callerOf(payload), id)
          return true
        }),
      ...Object.fromEntries(submissions),
      cancel: mutation(OperationObject)
        .description(
          'Asks the operation to cancel, also once more while it is pending. Whether it is obeyed shows in its outcome. An operator may cancel the operation of any user.',
        )
        .input({ id: Id })
        .resolve(async ({ id }, payload) => toObject(await tell.cancel({ caller: await callerOf(payload), id }))),
      signal: mutation(OperationObject)
        .description('Gives the operation an answer that it waits for, or will wait for: each name once.')
        .input({ id: Id, name: v.string(), payload: Json })
        .resolve(async (asked, payload) => {
          const caller = await callerOf(payload)
          const told = tell.signal({ ...asked, caller, base: '#/payload' })
          return toObject(await told.catch((error: unknown) => noteForbidden(error, caller, payload)))
        }),

      me: query(User).resolve(async (_, payload) => accounts.me(await callerOf(payload))),
      sessions: query(v.array(Session))
        .description('Your sessions, newest first.')
        .resolve(async (_, payload) => accounts.sessions(await callerOf(payload))),
      operation: query(OperationObject)
        .input({ id: Id })
        .resolve(async ({ id }, payload) => toObject(await read.one((await callerOf(payload)).user, id))),
      operations: query(OperationConnection)
        .description('Your operations, newest first.')
        .input({ first: v.nullish(v.pipe(v.number(), v.integer())), after: v.nullish(v.string()) })
        .resolve(async ({ first, after }, payload) => {
          const { user } = await callerOf(payload)
          return toConnection(await read.page(user, { limit: limitOf(first), cursor: after ?? undefined }))
        }),

      operationChanged: subscription(OperationObject)
        .description(
          'The operation as it is, and again when it has more progress and when its result arrives. Changes that come close together may come as one. After the result the subscription ends, also where the operation failed as dead-lettered: if an operator redrives its message, a new subscription shows the new result.',
        )
        .input({ id: Id })
        .subscribe(async ({ id }, payload) => {
          const { user } = await callerOf(payload)
          const signal = AbortSignal.any([closing, contextOf(payload).request.signal])
          const changes = waiters.changes(user, id, signal)
          // A client that leaves before it reads must not keep a place.
          signal.addEventListener('abort', () => void changes.return(), { once: true })
          // Before the answer begins: what is refused is answered with its status, and no stream.
          const first = await changes.next()
          return (async function* () {
            try {
              for (let next = first; !next.done; next = await changes.next()) yield toObject(next.value)
            } finally {
              await changes.return()
            }
          })()
        }),
    }),
  )
}

function toObject({ output, ...operation }: Operation) {
  return { ...operation, ...(output && { [fieldName(operation.type)]: output }) }
}

function toConnection({ items, next }: Awaited<ReturnType<Read['page']>>) {
  const edges = items.map((operation) => ({ cursor: encodeCursor(operation.id), node: toObject(operation) }))
  return {
    edges,
    pageInfo: {
      hasNextPage: next !== undefined,
      // The Relay specification allows false from a server that only pages forward.
      hasPreviousPage: false,
      startCursor: edges[0]?.cursor,
      endCursor: edges.at(-1)?.cursor,
    },
  }
}

function limitOf(first: number | null | undefined): number {
  const limit = first ?? DEFAULT_FIRST
  if (limit >= 1 && limit <= MAX_FIRST) return limit
  const detail = `must be a whole number from 1 to ${MAX_FIRST}`
  throw new Problem('invalid-input', undefined, { errors: [{ pointer: '#/first', detail }] })
}

type Payload = ResolverPayload | undefined

const Context = v.object({
  authorization: v.nullable(v.string()),
  address: v.string(),
  proof: v.optional(v.string()),
  request: v.instance(Request),
})
/** What a resolver knows of the request, besides the request itself, which yoga adds. */
export type RequestContext = Omit<v.InferOutput<typeof Context>, 'request'>

function contextOf(payload: Payload) {
  return v.parse(Context, payload?.context)
}
