// KafkaJS: reads a topic from its beginning to a last offset; prints offset and key of each record.
const { Kafka, logLevel } = require('kafkajs')

const [address, topic, last] = process.argv.slice(2)

async function main() {
  const kafka = new Kafka({ brokers: [address], logLevel: logLevel.ERROR })
  const consumer = kafka.consumer({ groupId: `shapes-${Date.now()}` })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await new Promise((resolve, reject) => {
    let at = -1
    setTimeout(() => reject(new Error(`nothing after ${at}`)), 30000)
    consumer.run({
      eachMessage: async ({ message }) => {
        at = Number(message.offset)
        console.log(at, message.key.toString())
        if (at >= Number(last)) resolve()
      },
    })
  })
  process.exit(0)
}

main().catch((error) => { console.error(error); process.exit(1) })
