import { collectNames, mutation, query, type ResolverPayload, resolver, subscription, weave } from '@gqloom/core'
import { asEnumType, asField, asObjectType, ValibotWeaver } from '@gqloom/valibot'
import { catalog, type OperationType } from '@posta/common/operations/catalog.ts'
import type { Contract } from '@posta/common/operations/contract.ts'
import { RateSource } from '@posta/common/operations/rates.ts'
import { authenticate, type Caller, type TokenVerifier } from '@posta/common/service/auth.ts'
import { encodeCursor } from '@posta/common/service/pages.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { GraphQLID, GraphQLNonNull, type GraphQLSchema } from 'graphql'
import * as v from 'valibot'
import type { Accounts } from '../accounts/accounts.ts'
import { Tokens } from '../accounts/credentials.ts'
import { Login } from '../accounts/login.ts'
import { Logout } from '../accounts/logout.ts'
import { Refresh } from '../accounts/refresh.ts'
import { Registration } from '../accounts/register.ts'
import type { Waiters } from '../operations/await-outcome.ts'
import type { Operation } from '../operations/operation.ts'
import type { Read } from '../operations/read.ts'
import type { Submit } from '../operations/submit.ts'

/** What a resolver knows of the request. */
export interface RequestContext {
  readonly authorization: string | null
  readonly address: string
}

const MAX_FIRST = 100
const DEFAULT_FIRST = 20
const operationTypes: readonly OperationType[] = Object.values(catalog).map(({ type }) => type)

/** `store-rates` is `storeRates` here. */
const fieldName = (type: string) => type.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase())
const typeName = (type: string) => fieldName(type).replace(/^\w/, (letter) => letter.toUpperCase())

const Id = v.pipe(v.string(), asField({ type: new GraphQLNonNull(GraphQLID) }))
const Cursor = v.nullish(v.string())
const User = v.pipe(
  v.object({
    id: Id,
    email: v.string(),
    role: v.pipe(v.picklist(['user', 'operator']), asEnumType('Role')),
    createdAt: v.string(),
  }),
  asObjectType('User'),
)

/** One nullable field per type of operation, with its output. */
const outputs = Object.fromEntries(
  operationTypes.map((type) => [fieldName(type), v.nullish(catalog[type].output as Contract['output'])]),
)

const OperationObject = v.pipe(
  v.object({
    id: Id,
    type: v.string(),
    status: v.pipe(v.picklist(['pending', 'succeeded', 'failed']), asEnumType('OperationStatus')),
    error: v.nullish(v.pipe(v.object({ code: v.string(), message: v.string() }), asObjectType('OperationError'))),
    createdAt: v.string(),
    completedAt: v.nullish(v.string()),
    ...outputs,
  }),
  asObjectType('Operation'),
)

const OperationConnection = v.pipe(
  v.object({
    edges: v.array(v.pipe(v.object({ cursor: v.string(), node: OperationObject }), asObjectType('OperationEdge'))),
    pageInfo: v.pipe(
      v.object({
        hasNextPage: v.boolean(),
        hasPreviousPage: v.boolean(),
        startCursor: v.nullish(v.string()),
        endCursor: v.nullish(v.string()),
      }),
      asObjectType('PageInfo'),
    ),
  }),
  asObjectType('OperationConnection'),
)

function toObject({ output, ...operation }: Operation) {
  return { ...operation, ...(output && { [fieldName(operation.type)]: output }) }
}

/** GraphQL over the same functions as REST. Its types come from the schemas that validate. */
export function createSchema(parts: {
  accounts: Accounts
  submit: Submit
  read: Read
  waiters: Waiters
  verify: TokenVerifier
  closing: AbortSignal
}): GraphQLSchema {
  const { accounts, submit, read, waiters, verify, closing } = parts
  collectNames({
    RateSource,
    Tokens,
    RegisterInput: Registration,
    LoginInput: Login,
    RefreshInput: Refresh,
    LogoutInput: Logout,
  })
  for (const type of operationTypes)
    collectNames({ [`${typeName(type)}Input`]: catalog[type].input, [`${typeName(type)}Output`]: catalog[type].output })

  const submissions = Object.fromEntries(
    operationTypes.map((type) => {
      const { input, description }: Contract = catalog[type]
      const submitted = mutation(OperationObject)
        .description(description)
        .input({ input, idempotencyKey: v.nullish(v.string()) })
        .resolve(async (args, payload) => {
          const { user } = await callerOf(payload)
          const submission = { type, input: args.input }
          return toObject(await submit({ user, submission, idempotencyKey: args.idempotencyKey ?? undefined }))
        })
      return [fieldName(type), submitted]
    }),
  )

  async function callerOf(payload: ResolverPayload | undefined): Promise<Caller> {
    return authenticate(contextOf(payload).authorization, verify)
  }

  return weave(
    ValibotWeaver,
    resolver({
      register: mutation(User)
        .input({ input: Registration })
        .resolve(({ input }, payload) => accounts.register(input, { address: contextOf(payload).address })),
      login: mutation(Tokens)
        .input({ input: Login })
        .resolve(({ input }, payload) => accounts.logIn(input, contextOf(payload).address)),
      refresh: mutation(Tokens)
        .input({ input: Refresh })
        .resolve(({ input }) => accounts.refresh(input)),
      logout: mutation(v.boolean())
        .description('True: there is no such session any more.')
        .input({ input: Logout })
        .resolve(async ({ input }) => {
          await accounts.logOut(input)
          return true
        }),
      ...submissions,

      me: query(User).resolve(async (_, payload) => accounts.me(await callerOf(payload))),
      operation: query(OperationObject)
        .input({ id: Id })
        .resolve(async ({ id }, payload) => toObject(await read.one((await callerOf(payload)).user, id))),
      operations: query(OperationConnection)
        .description('Your operations, newest first.')
        .input({ first: v.nullish(v.pipe(v.number(), v.integer())), after: Cursor })
        .resolve(async ({ first, after }, payload) => {
          const { user } = await callerOf(payload)
          const page = await read.page(user, { limit: limitOf(first), cursor: after ?? undefined })
          const edges = page.items.map((operation) => ({
            cursor: encodeCursor(operation.id),
            node: toObject(operation),
          }))
          return {
            edges,
            pageInfo: {
              hasNextPage: page.next !== undefined,
              // The Relay specification lets a server that pages forward alone say false.
              hasPreviousPage: false,
              startCursor: edges[0]?.cursor,
              endCursor: edges.at(-1)?.cursor,
            },
          }
        }),

      operationChanged: subscription(OperationObject)
        .description(
          'The operation as it is, and again when its result arrives. Then it is complete, also where the operation failed as dead-lettered: if an operator has that put right, a new subscription shows it.',
        )
        .input({ id: Id })
        .subscribe(async function* ({ id }, payload) {
          const { user } = await callerOf(payload)
          const left = payload ? requestSignal(payload) : closing
          for await (const operation of waiters.changes(user, id, AbortSignal.any([closing, left])))
            yield toObject(operation)
        }),
    }),
  )
}

function limitOf(first: number | null | undefined): number {
  const limit = first ?? DEFAULT_FIRST
  if (limit >= 1 && limit <= MAX_FIRST) return limit
  const detail = `must be a whole number from 1 to ${MAX_FIRST}`
  throw new Problem('invalid-input', undefined, { errors: [{ pointer: '#/first', detail }] })
}

const Context = v.object({ authorization: v.nullable(v.string()), address: v.string(), request: v.instance(Request) })

function contextOf(payload: ResolverPayload | undefined) {
  return v.parse(Context, payload?.context)
}

const requestSignal = (payload: ResolverPayload) => contextOf(payload).request.signal
