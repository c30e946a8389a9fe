// A NestJS client: places orders, each acknowledged by all, and asks for sums, whose answers come by a topic.
require('reflect-metadata')
const { ClientProxyFactory, Transport } = require('@nestjs/microservices')
const { firstValueFrom, timeout } = require('rxjs')

const [address, from, to, questions] = process.argv.slice(2)

async function main() {
  const client = ClientProxyFactory.create({
    transport: Transport.KAFKA,
    options: {
      client: { brokers: [address], retry: { initialRetryTime: 100, retries: 30, maxRetryTime: 1000 }, logLevel: 1 },
      consumer: { groupId: `asks-${process.pid}`, sessionTimeout: 6000, heartbeatInterval: 1000 },
      producer: { idempotent: true, maxInFlightRequests: 1 },
      send: { acks: -1 },
    },
  })
  if (Number(questions) > 0) client.subscribeToResponseOf('sum')
  await client.connect()
  for (let id = Number(from); id < Number(to); id += 50) {
    const placed = []
    for (let next = id; next < Math.min(id + 50, Number(to)); next++) {
      const order = { key: `customer ${next % 13}`, value: { id: next, text: 'coffee '.repeat(next % 5) + 'to go' } }
      placed.push(firstValueFrom(client.emit('orders', order)))
    }
    await Promise.all(placed)
  }
  for (let n = 0; n < Number(questions); n++) {
    // KafkaJS looks for the end of the topic of answers when it first fetches: an answer that is there before is not seen.
    const ask = () => firstValueFrom(client.send('sum', [n, 2 * n, 1]).pipe(timeout(10000)))
    const answer = await ask().catch(ask).catch(ask).catch(ask)
    if (Number(answer.sum) !== 3 * n + 1) throw new Error(`the sum of ${n} is ${JSON.stringify(answer)}`)
  }
  await client.close()
  console.log('good')
}

main().catch((error) => { console.error(error); process.exit(1) })
