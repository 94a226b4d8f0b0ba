import * as v from 'valibot'
import type { Environment } from '../../common/service/config.ts'
import { call, expectBody, Tokens } from '../../tools/client.ts'
import { runProgram } from './run-program.ts'

export const PASSWORD = 'a long sentence that only I know'

export interface User {
  readonly id: string
  readonly email: string
  readonly token: string
  readonly refreshToken: string
}

const Registered = v.object({ id: v.string(), email: v.string() })

/** Registers a user and logs them in. */
export async function newUser(gatewayUrl: string): Promise<User> {
  const email = `user-${Bun.randomUUIDv7()}@example.com`
  const registered = await call('POST', `${gatewayUrl}/auth/register`, { body: { email, password: PASSWORD } })
  const { id } = expectBody(registered, 201, Registered)
  const { accessToken, refreshToken } = await logIn(gatewayUrl, email)
  return { id, email, token: accessToken, refreshToken }
}

export async function logIn(
  gatewayUrl: string,
  email: string,
  password = PASSWORD,
): Promise<v.InferOutput<typeof Tokens>> {
  return expectBody(await call('POST', `${gatewayUrl}/auth/login`, { body: { email, password } }), 200, Tokens)
}

/** Adds an operator by the command, which reads the password from its standard input. Resolves to the email. */
export async function addOperator(environment: Environment): Promise<string> {
  const email = `operator-${Bun.randomUUIDv7()}@example.com`
  const words = ['gateway/tools/users.ts', 'add', email, '--role', 'operator']
  const { code, error } = await runProgram(words, { environment, input: `${PASSWORD}\n` })
  if (code !== 0) throw new Error(`The operator could not be added: ${error}`)
  return email
}

/** Adds an operator. Resolves to their access token. */
export async function newOperator(environment: Environment, gatewayUrl: string): Promise<string> {
  return (await logIn(gatewayUrl, await addOperator(environment))).accessToken
}
