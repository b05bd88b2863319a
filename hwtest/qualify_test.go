package hwtest

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/hwtest/lab"
)

// TestQualifyOnALAN has two machines measure what a third casts, one of them
// behind a link that loses packets, on a switch that asks for members and on one
// that does not.
func TestQualifyOnALAN(t *testing.T) {
	program := cistern(t)
	for _, c := range []struct {
		name    string
		querier bool
	}{{"querier", true}, {"no querier", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.TempDir() // before the lab: it must outlive what runs in there
			l := lab.Test(t)
			sw := l.Switch("lan", lab.SwitchConfig{Prefixes: []string{"10.0.0.0/24"}, Snooping: true, Querier: c.querier})
			sender, clean, lossy := l.Host("sender"), l.Host("clean"), l.Host("lossy")
			sender.Join(sw, lab.LinkConfig{})
			clean.Join(sw, lab.LinkConfig{})
			lossy.Join(sw, lab.LinkConfig{ToHost: lab.Path{Loss: lab.Loss{Kind: lab.Random, Fraction: 0.05}}})
			if err := l.Up(t.Context()); err != nil {
				t.Fatal(err)
			}
			var listening [2]*lab.Process
			var said [2]bytes.Buffer
			for i, h := range []*lab.Host{clean, lossy} {
				listening[i] = h.Command(program, "hwtest", "--here", "--quick", "--json", "--wire", "2m", "--nic", "eth0", "--dir", t.TempDir())
				listening[i].Stdout = &said[i]
				if err := listening[i].Start(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			group := netip.MustParseAddr("239.192.77.77")
			waitFor(t, "two members of the group", func() bool {
				n, err := sw.Members(group)
				return err == nil && n == 2
			})
			if out, err := sender.Run(t.Context(), program, "hwtest", "--send", "eth0", "--rate", "20Mbit", "--for", "5s"); err != nil {
				t.Fatalf("send: %v\n%s", err, out)
			}
			var got [2]client.NIC
			for i, p := range listening {
				_ = p.Wait() // the verdict, which is none of this test's business
				got[i] = measuredCard(t, said[i].Bytes())
			}
			if m := got[0].Multicast; m.Path != "wire" || m.Received < 1000 || m.Lost > m.Sent/100 {
				t.Errorf("without loss: %+v", m)
			}
			if m := got[1].Multicast; m.Path != "wire" || m.Lost < m.Sent*2/100 || m.Lost > m.Sent*10/100 {
				t.Errorf("with a loss of 5 %%: %+v", m)
			}
			for _, n := range got {
				if c.querier && n.Querier.State != "present" || !c.querier && n.Querier.State == "present" {
					t.Errorf("querier: %+v", n.Querier)
				}
			}
		})
	}
}

// measuredCard reads the report of a machine with one card.
func measuredCard(t *testing.T, said []byte) client.NIC {
	t.Helper()
	var report client.Qualification
	if err := json.Unmarshal(said, &report); err != nil || len(report.NICs) != 1 {
		t.Fatalf("the report: %v\n%s", err, said)
	}
	return report.NICs[0]
}
