/**
 * The partition of a key: murmur2 over its UTF-8, as in Kafka's own clients, so that the messages of a key keep their
 * order when other programs publish to these topics too.
 */
export function partitionOf(key: string, partitions: number): number {
  return (murmur2(Buffer.from(key)) & 0x7fffffff) % partitions
}

const SEED = 0x9747b28c
const M = 0x5bd1e995

/** The 32-bit MurmurHash2 of org.apache.kafka.common.utils.Utils.murmur2, a signed number. */
export function murmur2(data: Buffer): number {
  let hash = SEED ^ data.length
  const whole = data.length - (data.length % 4)
  for (let at = 0; at < whole; at += 4) {
    let k = Math.imul(data.readInt32LE(at), M)
    k = Math.imul(k ^ (k >>> 24), M)
    hash = Math.imul(hash, M) ^ k
  }
  if (whole < data.length) hash = Math.imul(hash ^ data.readUIntLE(whole, data.length - whole), M)
  hash = Math.imul(hash ^ (hash >>> 13), M)
  return hash ^ (hash >>> 15)
}
