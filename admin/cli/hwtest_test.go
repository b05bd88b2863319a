package cli

import (
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/admin/client"
)

func TestHwtest(t *testing.T) {
	b := newBox(t)
	b.answers["GET /api/v1/hardware"] = client.Qualification{State: client.QualifyNone}
	if code, out, errs := b.do("hwtest", "--last"); code != Done || !strings.Contains(out, "not measured") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	b.answers["POST /api/v1/hardware"] = client.Qualification{State: client.QualifyRunning}
	done := client.Qualification{
		State: client.QualifyDone,
		NICs:  []client.NIC{{Name: "eth0", BitRate: 1_000_000_000, Multicast: client.MulticastTest{Path: "wire", Sent: 9, Lost: 1}}},
		Verdict: client.Verdict{
			Text: "good for 400 clients \x1b[31m", Fit: true, Findings: []client.Finding{{Level: client.Warn, Part: "disk", Text: "slow"}},
		},
	}
	b.answers["GET /api/v1/hardware"] = done
	code, out, errs := b.do("hwtest", "--quick")
	if code != Done || !strings.Contains(out, "good for 400 clients") || !strings.Contains(out, "1 of 9 lost") || !strings.Contains(out, "slow") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if strings.Contains(out, "\x1b") {
		t.Errorf("a box commands the terminal: %q", out)
	}
	if code, out, errs := b.do("hwtest", "--json"); code != Done || !strings.Contains(out, `"lost": 1`) && !strings.Contains(out, `"lost":1`) {
		t.Errorf("%d %q %q", code, out, errs)
	}
	done.Verdict.Fit = false
	b.answers["GET /api/v1/hardware"] = done
	if code, _, errs := b.do("hwtest"); code != Failed || !strings.Contains(errs, "not fit") {
		t.Errorf("an unfit machine: %d %q", code, errs)
	}
	b.answers["DELETE /api/v1/hardware"] = client.Qualification{State: client.QualifyStopped}
	if code, out, errs := b.do("hwtest", "--stop"); code != Done || !strings.Contains(out, "stopped before the end") {
		t.Errorf("%d %q %q", code, out, errs)
	}
}

// What is no disk, or may not be erased, is refused before a byte is written.
func TestHwtestRefusesToErase(t *testing.T) {
	b := newBox(t)
	if code, out, errs := b.do("hwtest", "--erase", "/dev/null", "--yes"); code == Done || !strings.Contains(errs, "no disk") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if code, out, errs := b.do("hwtest", "--erase", "/dev/null"); code == Done {
		t.Errorf("unasked: %d %q %q", code, out, errs)
	}
}
