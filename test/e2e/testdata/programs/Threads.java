import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.LongAdder;
import java.util.stream.IntStream;

/** Many threads that make garbage, parallel streams, a child, and faults that the VM turns into exceptions. */
public class Threads {
  static final int THREADS = 300;

  public static void main(String[] args) throws Exception {
    System.out.println("threads " + threads());
    System.out.println("map " + map());
    System.out.println("streams " + IntStream.range(0, 5_000_000).parallel().mapToLong(i -> (long) i * i % 7).sum());
    System.out.println("child " + child());
    System.out.println("faults " + faults() + " " + overflow());
  }

  static long threads() throws Exception {
    LongAdder sum = new LongAdder();
    CyclicBarrier barrier = new CyclicBarrier(THREADS);
    List<Thread> all = new ArrayList<>();
    for (int i = 0; i < THREADS; i++) {
      byte n = (byte) i;
      all.add(new Thread(() -> garbage(barrier, sum, n)));
    }
    for (Thread t : all) t.start();
    for (Thread t : all) t.join();
    return sum.sum();
  }

  static void garbage(CyclicBarrier barrier, LongAdder sum, byte n) {
    try {
      barrier.await(); // all of them are alive at once
    } catch (Exception e) {
      throw new RuntimeException(e);
    }
    Deque<byte[]> kept = new ArrayDeque<>();
    for (int i = 0; i < 200; i++) {
      byte[] b = new byte[4096];
      Arrays.fill(b, n);
      kept.add(b);
      if (kept.size() > 20) sum.add(kept.remove()[i]);
    }
  }

  static int map() {
    Map<Integer, String> m = new TreeMap<>();
    Random random = new Random(1);
    for (int i = 0; i < 1_000_000; i++) m.put(random.nextInt(50_000), "v" + i);
    return m.hashCode();
  }

  static String child() throws Exception {
    Process p = new ProcessBuilder("sh", "-c", "seq 1 1000 | tail -n 1; exit 3").start();
    return new String(p.getInputStream().readAllBytes()).trim() + " " + p.waitFor();
  }

  static int faults() {
    int caught = 0;
    String[] maybe = {"some", null};
    for (int i = 0; i < 100_000; i++) {
      try {
        caught += maybe[i % 2].length() - 4;
      } catch (NullPointerException e) {
        caught++;
      }
    }
    return caught;
  }

  static String overflow() {
    try {
      return "depth " + deeper(0);
    } catch (StackOverflowError e) {
      return "overflow";
    }
  }

  static int deeper(int n) { return deeper(n + 1) + 1; }
}
