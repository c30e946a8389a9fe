import java.time.Duration;
import java.util.*;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.acl.*;
import org.apache.kafka.common.quota.*;
import org.apache.kafka.common.resource.*;
import org.apache.kafka.common.serialization.*;

/** Asks for what this broker does not do, and prints how soon it is told, and what. */
public class Refusals {
    interface Question { void ask() throws Exception; }

    static void ask(String what, Question question) {
        long begun = System.nanoTime();
        String told = "nothing";
        try {
            question.ask();
        } catch (Throwable e) {
            Throwable cause = e instanceof ExecutionException ? e.getCause() : e;
            told = cause.getClass().getSimpleName() + ": " + String.valueOf(cause.getMessage()).replace('\n', ' ');
        }
        long ms = (System.nanoTime() - begun) / 1_000_000;
        System.out.println(what + " | " + (ms < 8_000 ? "soon" : "after " + ms + " ms") + " | " + told);
    }

    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[0];
        Map<String, Object> common = Map.of("bootstrap.servers", bootstrap, "request.timeout.ms", "10000");
        Map<String, Object> administration = new HashMap<>(common);
        administration.put("default.api.timeout.ms", "20000");
        try (Admin admin = Admin.create(administration)) {
            admin.createTopics(List.of(new NewTopic("t", 1, (short) 1))).all().get();
            AclBinding acl = new AclBinding(
                new ResourcePattern(ResourceType.TOPIC, "t", PatternType.LITERAL),
                new AccessControlEntry("User:a", "*", AclOperation.READ, AclPermissionType.ALLOW));
            ask("describeAcls", () -> admin.describeAcls(AclBindingFilter.ANY).values().get());
            ask("createAcls", () -> admin.createAcls(List.of(acl)).all().get());
            ask("deleteAcls", () -> admin.deleteAcls(List.of(acl.toFilter())).all().get());
            ask("describeClientQuotas", () -> admin.describeClientQuotas(ClientQuotaFilter.all()).entities().get());
            ask("alterClientQuotas", () -> admin.alterClientQuotas(List.of(new ClientQuotaAlteration(
                new ClientQuotaEntity(Map.of("client-id", "c")),
                List.of(new ClientQuotaAlteration.Op("producer_byte_rate", 1e6))))).all().get());
            ask("describeScram", () -> admin.describeUserScramCredentials().all().get());
            ask("alterScram", () -> admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion(
                "u", new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), "p"))).all().get());
            ask("createToken", () -> admin.createDelegationToken().delegationToken().get());
            ask("describeTokens", () -> admin.describeDelegationToken().delegationTokens().get());
            ask("listTransactions", () -> admin.listTransactions().all().get());
            ask("describeTransactions", () -> admin.describeTransactions(List.of("tx")).all().get());
            ask("fenceProducers", () -> admin.fenceProducers(List.of("tx")).all().get());
            ask("abortTransaction", () -> admin.abortTransaction(new AbortTransactionSpec(new TopicPartition("t", 0), 1, (short) 0, 0)).all().get());
            ask("describeConsumerGroups", () -> admin.describeConsumerGroups(List.of("nogroup")).all().get());
            ask("describeShareGroups", () -> admin.describeShareGroups(List.of("nogroup")).all().get());
            ask("listShareOffsets", () -> admin.listShareGroupOffsets(Map.of("s", new ListShareGroupOffsetsSpec())).all().get());
        }
        Map<String, Object> tx = new HashMap<>(common);
        tx.put("transactional.id", "tx");
        tx.put("max.block.ms", "15000");
        try (KafkaProducer<String, String> p = new KafkaProducer<>(tx, new StringSerializer(), new StringSerializer())) {
            ask("initTransactions", p::initTransactions);
        }
        Map<String, Object> group = new HashMap<>(common);
        group.put("group.id", "g");
        group.put("group.protocol", "consumer");
        try (KafkaConsumer<String, String> c = new KafkaConsumer<>(group, new StringDeserializer(), new StringDeserializer())) {
            c.subscribe(List.of("t"));
            ask("consumer protocol", () -> { for (int i = 0; i < 12; i++) c.poll(Duration.ofSeconds(1)); });
        }
        Map<String, Object> share = new HashMap<>(common);
        share.put("group.id", "s");
        try (KafkaShareConsumer<String, String> c = new KafkaShareConsumer<>(share, new StringDeserializer(), new StringDeserializer())) {
            c.subscribe(List.of("t"));
            ask("share consumer", () -> { for (int i = 0; i < 12; i++) c.poll(Duration.ofSeconds(1)); });
        }
    }
}
