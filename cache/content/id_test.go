package content_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

const someRoot = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

func TestIDText(t *testing.T) {
	for _, s := range []string{
		someRoot + "-1",
		someRoot + "-9223372036854775807",
		strings.Repeat("0", 64) + "-0",
		strings.Repeat("0", 64) + "-7",
	} {
		id, err := content.ParseID(s)
		if err != nil {
			t.Errorf("ParseID(%q): %v", s, err)
			continue
		}
		if id.String() != s {
			t.Errorf("ParseID(%q) is written %q", s, id)
		}
		text, err := json.Marshal(id)
		if err != nil {
			t.Fatal(err)
		}
		var back content.ID
		if err := json.Unmarshal(text, &back); err != nil || back != id {
			t.Errorf("JSON %s came back as %v, %v", text, back, err)
		}
	}
	upper, err := content.ParseID(strings.ToUpper(someRoot) + "-1")
	if err != nil || upper.String() != someRoot+"-1" {
		t.Errorf("upper case: got %v, %v", upper, err)
	}
}

func TestParseIDNamesWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "want <64 hexadecimal digits>-<size>"},
		{someRoot, "want <64 hexadecimal digits>-<size>"},
		{"-5", "want 64 hexadecimal digits, got 0"},
		{someRoot[1:] + "-5", "want 64 hexadecimal digits, got 63"},
		{"x" + someRoot[1:] + "-5", "invalid byte"},
		{someRoot + "-", `size ""`},
		{someRoot + "--5", `size "-5"`},
		{someRoot + "-+5", `size "+5"`},
		{someRoot + "-05", `size "05"`},
		{someRoot + "- 5", `size " 5"`},
		{someRoot + "-1e3", `size "1e3"`},
		{someRoot + "-9223372036854775808", "not a number of bytes"},
		{someRoot + "-0", "empty object has a root of zeros"},
		{strings.Repeat("z", 10_000), "zzz…"},
	} {
		id, err := content.ParseID(c.in)
		if err == nil {
			t.Errorf("ParseID(%.80q) gave %v, want an error", c.in, id)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || len(err.Error()) > 400 {
			t.Errorf("ParseID(%.80q): error %q, want %q in it", c.in, err, c.want)
		}
	}
}

func TestIsZero(t *testing.T) {
	if !(content.ID{}).IsZero() || (content.ID{Size: 1}).IsZero() || (content.ID{Root: content.Hash{1}}).IsZero() {
		t.Error("IsZero is true of other identities than the zero one")
	}
}

func FuzzParseID(f *testing.F) {
	for _, s := range []string{"", someRoot + "-1", someRoot + "-01", strings.Repeat("0", 64) + "-0", someRoot + "-99999999999999999999", "é-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := content.ParseID(s)
		if err != nil {
			return
		}
		if id.Size < 0 || id.String() != strings.ToLower(s) {
			t.Errorf("ParseID(%q) is written %q", s, id)
		}
		if back, err := content.ParseID(id.String()); err != nil || back != id {
			t.Errorf("%q came back as %v, %v", id, back, err)
		}
	})
}
