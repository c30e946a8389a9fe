// franz-go and sarama: every codec, groups, idempotence, admin.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const each = 200

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	switch os.Args[1] {
	case "franz":
		franz(os.Args[2])
	case "sarama":
		saramaClient(os.Args[2])
	case "tiered":
		tiered(os.Args[2], os.Args[3])
	case "refused":
		refused(os.Args[2])
	case "shapes":
		shapes(os.Args[2], os.Args[3], os.Args[4], os.Args[5])
		return
	}
	fmt.Println("good")
}

func franz(address string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	first, err := kgo.NewClient(kgo.SeedBrokers(address))
	check(err)
	admin := kadm.NewClient(first)
	_, err = admin.CreateTopic(ctx, 3, 1, map[string]*string{"cleanup.policy": kadm.StringPtr("delete")}, "franz")
	check(err)
	for i, codec := range codecs {
		client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.ProducerBatchCompression(codec))
		check(err)
		var records []*kgo.Record
		for n := 0; n < each; n++ {
			records = append(records, &kgo.Record{Topic: "franz", Key: []byte{byte(n)}, Value: []byte(fmt.Sprintf("%d-%d-some-text-to-pack", i, n))})
		}
		check(client.ProduceSync(ctx, records...).FirstErr())
		client.Close()
	}
	consumer, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.ConsumerGroup("franz"), kgo.ConsumeTopics("franz"), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	check(err)
	found := map[string]bool{}
	for len(found) < each*len(codecs) {
		fetches := consumer.PollFetches(ctx)
		check(ctx.Err())
		fetches.EachError(func(_ string, _ int32, err error) { check(err) })
		fetches.EachRecord(func(r *kgo.Record) { found[string(r.Value)] = true })
	}
	check(consumer.CommitUncommittedOffsets(ctx))
	lags, err := admin.Lag(ctx, "franz")
	check(err)
	if lag := lags["franz"].Lag.Total(); lag != 0 {
		check(fmt.Errorf("lag is %d", lag))
	}
	consumer.Close()
	first.Close()
}

// Reads partition 0 from its beginning to its end, and from the time of a record in the middle on.
func tiered(address, topic string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(address))
	check(err)
	admin := kadm.NewClient(client)
	ends, err := admin.ListEndOffsets(ctx, topic)
	check(err)
	end, _ := ends.Lookup(topic, 0)
	all := readFrom(ctx, address, topic, 0, end.Offset)
	middle := all[len(all)/2]
	since, err := admin.ListOffsetsAfterMilli(ctx, middle.Timestamp.UnixMilli(), topic)
	check(err)
	found, _ := since.Lookup(topic, 0)
	if found.Offset > middle.Offset || found.Offset < 0 {
		check(fmt.Errorf("the time of offset %d is found at %d", middle.Offset, found.Offset))
	}
	rest := readFrom(ctx, address, topic, found.Offset, end.Offset)
	if rest[0].Timestamp.UnixMilli() < middle.Timestamp.UnixMilli() {
		check(fmt.Errorf("offset %d is older than what was asked for", found.Offset))
	}
	fmt.Println(len(all), "records,", len(rest), "from the middle on")
	client.Close()
}

func readFrom(ctx context.Context, address, topic string, from, end int64) (all []*kgo.Record) {
	client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(from)}}), kgo.KeepControlRecords())
	check(err)
	for len(all) == 0 || all[len(all)-1].Offset < end-1 {
		fetches := client.PollFetches(ctx)
		check(ctx.Err())
		fetches.EachError(func(_ string, _ int32, err error) { check(err) })
		fetches.EachRecord(func(r *kgo.Record) {
			if len(all) > 0 && r.Offset <= all[len(all)-1].Offset {
				check(fmt.Errorf("offset %d comes after %d", r.Offset, all[len(all)-1].Offset))
			}
			all = append(all, r)
		})
	}
	client.Close()
	return all
}

type handler struct {
	found map[string]bool
	want  int
	done  context.CancelFunc
}

func (handler) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (handler) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (h handler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		h.found[string(message.Value)] = true
		session.MarkMessage(message, "")
		if len(h.found) == h.want {
			session.Commit()
			h.done()
			return nil
		}
	}
	return nil
}

func saramaClient(address string) {
	config := sarama.NewConfig()
	config.Version = sarama.V3_6_0_0
	config.Producer.Return.Successes = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	admin, err := sarama.NewClusterAdmin([]string{address}, config)
	check(err)
	// One partition, so that one goroutine fills the map.
	check(admin.CreateTopic("sarama", &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false))
	codecs := []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD}
	for i, codec := range codecs {
		config.Producer.Compression = codec
		producer, err := sarama.NewSyncProducer([]string{address}, config)
		check(err)
		var messages []*sarama.ProducerMessage
		for n := 0; n < each; n++ {
			messages = append(messages, &sarama.ProducerMessage{Topic: "sarama", Value: sarama.StringEncoder(fmt.Sprintf("%d-%d-some-text-to-pack", i, n))})
		}
		check(producer.SendMessages(messages))
		check(producer.Close())
	}
	group, err := sarama.NewConsumerGroup([]string{address}, "sarama", config)
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	h := handler{map[string]bool{}, each * len(codecs), cancel}
	for ctx.Err() == nil {
		check(group.Consume(ctx, []string{"sarama"}, h))
	}
	if len(h.found) != h.want {
		check(fmt.Errorf("%d of %d records", len(h.found), h.want))
	}
	check(group.Close())
	groups, err := admin.ListConsumerGroups()
	check(err)
	if groups["sarama"] != "consumer" {
		check(fmt.Errorf("group not listed: %v", groups))
	}
	check(admin.DeleteTopic("sarama"))
}

// Begins transactions, which are not there: both clients are told soon.
func refused(address string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.TransactionalID("franz"), kgo.DefaultProduceTopic("t"), kgo.RecordDeliveryTimeout(15*time.Second))
	check(err)
	begun := time.Now()
	if err = client.BeginTransaction(); err == nil {
		err = client.ProduceSync(ctx, kgo.StringRecord("x")).FirstErr()
	}
	told("franz", begun, err)
	config := sarama.NewConfig()
	config.Version = sarama.V2_1_0_0
	config.Producer.Idempotent = true
	config.Producer.Return.Successes = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Transaction.ID = "sarama"
	config.Net.MaxOpenRequests = 1
	begun = time.Now()
	_, err = sarama.NewSyncProducer([]string{address}, config)
	told("sarama", begun, err)
}

func told(who string, begun time.Time, err error) {
	if took := time.Since(begun); err == nil || took > 10*time.Second {
		fmt.Fprintln(os.Stderr, who, "after", took, "is told:", err)
		os.Exit(1)
	}
	fmt.Println(who, err)
}
