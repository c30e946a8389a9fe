import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.Uuid;

/** Asks for topics by their ids: describes them, is told of an unknown one, deletes one. */
public class TopicsById {
    public static void main(String[] arguments) throws Exception {
        try (Admin admin = Admin.create(Map.<String, Object>of(
                "bootstrap.servers", arguments[0], "default.api.timeout.ms", "20000", "request.timeout.ms", "10000"))) {
            admin.createTopics(List.of(
                new NewTopic("first", 3, (short) 1), new NewTopic("second", 1, (short) 1))).all().get();
            Map<String, TopicDescription> named =
                admin.describeTopics(TopicCollection.ofTopicNames(List.of("first", "second"))).allTopicNames().get();
            Uuid first = named.get("first").topicId();
            Uuid second = named.get("second").topicId();
            Map<Uuid, TopicDescription> found =
                admin.describeTopics(TopicCollection.ofTopicIds(List.of(first, second))).allTopicIds().get();
            System.out.println("described " + found.get(first).name() + " " + found.get(first).partitions().size()
                + ", " + found.get(second).name() + " " + found.get(second).partitions().size());
            try {
                admin.describeTopics(TopicCollection.ofTopicIds(List.of(new Uuid(7, 7)))).allTopicIds().get();
            } catch (ExecutionException e) {
                System.out.println("unknown " + e.getCause().getClass().getSimpleName());
            }
            admin.deleteTopics(TopicCollection.ofTopicIds(List.of(first))).all().get();
            Set<String> left = admin.listTopics().names().get();
            System.out.println("left " + left);
        }
    }
}
