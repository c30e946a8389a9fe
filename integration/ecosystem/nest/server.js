// A NestJS microservice: notes every order that it handles in a file, refuses one once, and answers questions.
require('reflect-metadata')
const fs = require('fs')
const { Controller, Module } = require('@nestjs/common')
const { NestFactory } = require('@nestjs/core')
const { EventPattern, MessagePattern, Payload, Transport, KafkaRetriableException } = require('@nestjs/microservices')

const [address, file] = process.argv.slice(2)
const refused = new Set()

class Orders {
  placed(order) {
    if (order.id % 100 === 7 && !refused.has(order.id)) {
      refused.add(order.id)
      throw new KafkaRetriableException(`not now: ${order.id}`)
    }
    fs.appendFileSync(file, `${order.id} ${order.text}\n`)
  }

  sum(numbers) {
    return { sum: numbers.reduce((all, one) => all + one, 0) }
  }
}

// What TypeScript's decorators do.
const decorate = (method, pattern) => {
  pattern(Orders.prototype, method, Object.getOwnPropertyDescriptor(Orders.prototype, method))
  Payload()(Orders.prototype, method, 0)
}
decorate('placed', EventPattern('orders'))
decorate('sum', MessagePattern('sum'))
Controller()(Orders)
class App {}
Module({ controllers: [Orders] })(App)

NestFactory.createMicroservice(App, {
  logger: ['error', 'warn'],
  transport: Transport.KAFKA,
  options: {
    client: { brokers: [address], retry: { initialRetryTime: 100, retries: 30, maxRetryTime: 1000 }, logLevel: 1 },
    consumer: { groupId: 'orders', sessionTimeout: 6000, heartbeatInterval: 1000 },
    subscribe: { fromBeginning: true },
  },
}).then((app) => app.listen()).then(() => console.log('listening'))
