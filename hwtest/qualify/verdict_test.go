package qualify

import (
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/admin/client"
)

// good is a machine without a fault.
func good() client.Qualification {
	return client.Qualification{
		State: client.QualifyDone,
		NICs: []client.NIC{{
			Name: "eth0", Up: true, BitRate: 1_000_000_000, Duplex: "full", Querier: client.Querier{State: "present"},
			Multicast: client.MulticastTest{Path: "wire", Sent: 1000, Received: 1000, Snooping: "yes"},
		}},
		Disk: client.DiskTest{
			SequentialWrite: 400e6, SequentialRead: 500e6, RandomRead: 450e6, Fsync: client.Fsync{Count: 9, P99: 3},
			Capacity: client.Capacity{Bytes: 1e12, Marks: 100, Planned: 100}, Wear: client.Wear{Source: "nvme", PercentUsed: 3},
		},
		Processor: client.Processor{Cores: 4, SHA256: 1e9},
		Thermal:   client.Thermal{Kept: 0.98},
		Memory:    client.Memory{Bytes: 4 << 30, Available: 3 << 30},
		Random:    client.Random{Ready: true, Hardware: "rdrand"},
		Clock:     client.Clock{Kept: true},
		Watchdog:  client.Watchdog{Present: true},
	}
}

func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*client.Qualification)
		text   string // the whole verdict
		worst  string // begins the first finding
	}{
		"as it should be": {func(*client.Qualification) {}, "good for 400 clients at 1 Gbit/s; the network card is the limit", "ok disk: 1e+03 GB of it hold"},
		"slow disk": {func(q *client.Qualification) {
			q.Disk.RandomRead, q.Disk.SequentialRead, q.Disk.SequentialWrite = 5e6, 20e6, 9e6
		}, "good for 16 clients at 40 Mbit/s; the disk is the limit", "warn disk: slow: 9 MB/s for writes in a row"},
		"disk at the limit": {func(q *client.Qualification) {
			q.NICs[0].BitRate, q.Disk.RandomRead = 10_000_000_000, 125_000_000
		}, "good for 400 clients at 1 Gbit/s; the disk is the limit", "ok"},
		"very slow disk": {func(q *client.Qualification) { q.Disk.RandomRead = 1e5 }, "too slow for a client: the disk is the limit", "warn disk: slow"},
		"fake disk": {
			func(q *client.Qualification) { q.Disk.Capacity.Wraps, q.Disk.Capacity.Wrong = 8e9, 5 },
			"not fit: disk: a fake: what is written beyond 8 GB overwrites what came before; 5 of 100 marks were wrong", "bad disk: a fake",
		},
		"lossy disk": {
			func(q *client.Qualification) { q.Disk.Capacity.First, q.Disk.Capacity.Wrong = 8e9, 5 },
			"not fit: disk: does not hold what is written, from 8 GB on: 5 of 100 marks were wrong; a fake, or broken", "bad disk",
		},
		"dying disk": {func(q *client.Qualification) { q.Disk.Wear.Failing = true }, "not fit: disk: says that it is about to fail", "bad disk"},
		"broken disk": {
			func(q *client.Qualification) { q.Disk.Failed, q.Disk.Err = true, "input/output error" },
			"not fit: disk: does not work: input/output error", "bad disk",
		},
		"unknown disk": {
			func(q *client.Qualification) { q.Disk = client.DiskTest{Err: "no O_DIRECT"} },
			"good for 400 clients at 1 Gbit/s; the network card is the limit", "unknown disk: could not be measured: no O_DIRECT",
		},
		"not enough time": {
			func(q *client.Qualification) { q.Disk.Capacity.Marks = 40 },
			"good for 400 clients at 1 Gbit/s; the network card is the limit", "unknown disk: whether it holds what it says is likely",
		},
		"slow cores": {
			func(q *client.Qualification) { q.Processor.Cores, q.Processor.SHA256 = 1, 100e6 },
			"good for 160 clients at 400 Mbit/s; the processor is the limit", "ok",
		},
		"little memory": {func(q *client.Qualification) { q.Memory.Available = 266 << 20 }, "good for 40 clients at 1 Gbit/s; memory is the limit", "warn memory"},
		"bad memory":    {func(q *client.Qualification) { q.Memory.Wrong = 1 }, "not fit: memory: 1 words came back different from what was written", "bad"},
		"no cable":      {func(q *client.Qualification) { q.NICs[0].Up = false }, "not fit: network: no card is up", "bad network"},
		"slow link": {
			func(q *client.Qualification) { q.NICs[0].BitRate = 100_000_000 },
			"good for 40 clients at 100 Mbit/s; the network card is the limit", "warn network card eth0: the link is up at 100 Mbit/s only",
		},
		"deaf card": {func(q *client.Qualification) { q.NICs[0].Multicast.Received = 0 }, "not fit: network card eth0: no multicast arrives", "bad"},
		"lossy card": {
			func(q *client.Qualification) { q.NICs[0].Multicast.Lost = 20 },
			"good for 400 clients at 1 Gbit/s; the network card is the limit", "warn network card eth0: of 1000 multicast packets 20 were lost (2 %)",
		},
		"no querier": {
			func(q *client.Qualification) { q.NICs[0].Querier.State = "absent" },
			"good for 400 clients at 1 Gbit/s; the network card is the limit", "warn network card eth0: nobody asks",
		},
		"no snooping": {
			func(q *client.Qualification) { q.NICs[0].Multicast.Snooping = "no" },
			"good for 400 clients at 1 Gbit/s; the network card is the limit", "warn network card eth0: the switch sends groups",
		},
		"hot": {
			func(q *client.Qualification) { q.Thermal.Throttled = true },
			"good for 400 clients at 1 Gbit/s; the network card is the limit", "warn processor: slows down",
		},
		"nothing": {func(q *client.Qualification) { *q = client.Qualification{} }, "nothing could be measured", "warn"},
	} {
		q := good()
		c.change(&q)
		v := Judge(q)
		if v.Text != c.text {
			t.Errorf("%s: %q, want %q", name, v.Text, c.text)
		}
		if f := v.Findings[0]; !strings.HasPrefix(f.Level+" "+f.Part+": "+f.Text, c.worst) {
			t.Errorf("%s: the first finding is %+v", name, f)
		}
		if v.Fit == strings.HasPrefix(v.Text, "not fit") || !v.Fit && v.Clients != 0 {
			t.Errorf("%s: %+v", name, v)
		}
	}
}
