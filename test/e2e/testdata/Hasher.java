import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.concurrent.Executors;

/** The same service as guest http, on the JDK's own HTTP server. */
public class Hasher {
    public static void main(String[] args) throws IOException {
        HttpServer server = HttpServer.create(new InetSocketAddress(8080), 0);
        server.createContext("/hello", e -> answer(e, "hello, world\n"));
        server.createContext("/sha256", e -> answer(e, hash(e.getRequestBody())));
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.start();
        System.out.println("ready");
    }

    private static String hash(InputStream in) throws IOException {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            byte[] buf = new byte[1 << 16];
            long total = 0;
            for (int n; (n = in.read(buf)) > 0; total += n) {
                digest.update(buf, 0, n);
            }
            return HexFormat.of().formatHex(digest.digest()) + " " + total + "\n";
        } catch (java.security.NoSuchAlgorithmException e) {
            throw new IOException(e);
        }
    }

    private static void answer(HttpExchange e, String body) throws IOException {
        byte[] b = body.getBytes();
        e.sendResponseHeaders(200, b.length);
        e.getResponseBody().write(b);
        e.close();
    }
}
