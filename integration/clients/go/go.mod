module strandline/clients

go 1.24

require (
	github.com/IBM/sarama v1.46.3
	github.com/segmentio/kafka-go v0.4.51
	github.com/twmb/franz-go v1.22.0
	github.com/twmb/franz-go/pkg/kadm v1.19.0
)
