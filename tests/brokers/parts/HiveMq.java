import com.hivemq.HiveMQServer;
import com.hivemq.configuration.service.InternalConfigurations;

/** HiveMQ CE without extensions refuses everybody; with "open" it takes everybody. Its home is the property hivemq.home. */
public class HiveMq {
    public static void main(String[] arguments) throws Exception {
        InternalConfigurations.AUTH_DENY_UNAUTHENTICATED_CONNECTIONS.set(!arguments[0].equals("open"));
        HiveMQServer.main(new String[0]);
    }
}
