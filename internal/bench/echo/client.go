package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"junction/internal/lab"
)

// turn measures one variant in a lab of its own.
func turn(ctx context.Context, variant string, requests int, pin bool) (r result, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	l, err := lab.New(lab.Options{})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if variant == "native" {
		if err := l.Server.AddAddr(lab.ServerNIC, lab.ServerAddr4); err != nil {
			return r, err
		}
	}
	s, err := start(ctx, l, variant, pin)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	return measure(ctx, l, s, requests, pin)
}

func measure(ctx context.Context, l *lab.Lab, s *server, requests int, pin bool) (r result, err error) {
	if r.rtt, err = roundTrip(ctx, l, requests/5); err != nil {
		return r, err
	}
	before, err := s.cpu()
	if err != nil {
		return r, err
	}
	if r.many, err = ping(ctx, l, pin, 50, 1, requests); err != nil {
		return r, err
	}
	after, err := s.cpu()
	if err != nil {
		return r, err
	}
	r.cpu = float64((after - before).Microseconds()) / float64(requests)
	if r.one, err = ping(ctx, l, pin, 1, 1, requests/3); err != nil {
		return r, err
	}
	if r.pipelined, err = ping(ctx, l, pin, 50, 16, requests*8); err != nil {
		return r, err
	}
	if r.in, err = bulk(ctx, l, upload); err != nil {
		return r, err
	}
	r.out, err = bulk(ctx, l, download)
	return r, err
}

// server is a running copy of this program.
type server struct {
	cmd   *lab.Cmd
	stdin io.WriteCloser
}

func start(ctx context.Context, l *lab.Lab, variant string, pin bool) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	name, args := pinned(pin, "1", self)
	cmd := l.Server.Command(ctx, name, args...)
	cmd.Env = append(os.Environ(), serverEnv+"="+variant)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd, stdin}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("the server said %q", line), s.stop())
	}
	return s, nil
}

func (s *server) stop() error { return errors.Join(s.stdin.Close(), s.cmd.Wait()) }

// cpu returns the run time of the server's threads as the scheduler counts it
// (Documentation/scheduler/sched-stats.rst).
func (s *server) cpu() (sum time.Duration, err error) {
	dir := fmt.Sprintf("/proc/%d/task", s.cmd.Process.Pid)
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, t := range tasks {
		b, err := os.ReadFile(dir + "/" + t.Name() + "/schedstat")
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has just ended
		} else if err != nil {
			return 0, err
		}
		run, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseInt(run, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

func pinned(pin bool, cpu, name string, args ...string) (string, []string) {
	if !pin {
		return name, args
	}
	return "taskset", append([]string{"-c", cpu, name}, args...)
}

// ping returns the requests per second that redis-benchmark reports.
func ping(ctx context.Context, l *lab.Lab, pin bool, conns, pipeline, requests int) (float64, error) {
	name, args := pinned(pin, "0", "redis-benchmark", "-h", lab.ServerAddr4.Addr().String(), "-p", strconv.Itoa(port),
		"-t", "ping_inline", "-c", strconv.Itoa(conns), "-P", strconv.Itoa(pipeline), "-n", strconv.Itoa(requests), "--csv")
	out, err := l.Client.Command(ctx, name, args...).Output()
	if err != nil {
		return 0, fmt.Errorf("redis-benchmark: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	fields := strings.Split(lines[len(lines)-1], ",")
	if len(fields) < 2 {
		return 0, fmt.Errorf("redis-benchmark printed %q", out)
	}
	return strconv.ParseFloat(strings.Trim(fields[1], `"`), 64)
}

// roundTrip returns the median time of a UDP echo of 64 bytes, in microseconds.
func roundTrip(ctx context.Context, l *lab.Lab, n int) (float64, error) {
	c, err := l.Client.DialContext(ctx, "udp", netip.AddrPortFrom(lab.ServerAddr4.Addr(), port).String())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	times, buf := make([]time.Duration, 0, n), make([]byte, 64)
	for range n {
		begin := time.Now()
		if err := echoOnce(c, buf, begin); err != nil {
			return 0, err
		}
		times = append(times, time.Since(begin))
	}
	slices.Sort(times)
	return float64(times[n/2].Nanoseconds()) / 1e3, nil
}

func echoOnce(c net.Conn, buf []byte, now time.Time) error {
	if err := c.SetDeadline(now.Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write(buf); err != nil {
		return err
	}
	_, err := c.Read(buf)
	return err
}

// bulk returns the Gbit/s of a transfer of bulkBytes.
func bulk(ctx context.Context, l *lab.Lab, transfer func(net.Conn) error) (float64, error) {
	c, err := l.Client.DialContext(ctx, "tcp", netip.AddrPortFrom(lab.ServerAddr4.Addr(), bulkPort).String())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	begin := time.Now()
	if err := c.SetDeadline(begin.Add(limit / 2)); err != nil {
		return 0, err
	}
	if err := transfer(c); err != nil {
		return 0, err
	}
	return 8 * bulkBytes / 1e9 / time.Since(begin).Seconds(), nil
}

func upload(c net.Conn) error {
	buf := make([]byte, 256<<10)
	buf[0] = 'r'
	for left := bulkBytes; left > 0; left -= len(buf) {
		if _, err := c.Write(buf); err != nil {
			return err
		}
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	_, err := io.ReadFull(c, buf[:1])
	return err
}

func download(c net.Conn) error {
	if _, err := c.Write([]byte{'w'}); err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, c)
	if err == nil && n != bulkBytes {
		err = fmt.Errorf("%d bytes came of %d", n, bulkBytes)
	}
	return err
}
