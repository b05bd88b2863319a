package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/cistern-edge/cistern/admin/client"
)

// sshKeyCmd is who may come in by SSH.
type sshKeyCmd struct {
	List   sshListCmd   `cmd:"" default:"1" help:"List the keys that let in, and the box's own."`
	Add    sshAddCmd    `cmd:"" help:"Let a public key in: a .pub file, the line itself, or - for standard input."`
	Remove sshRemoveCmd `cmd:"" help:"Let a key in no longer."`
}

type sshListCmd struct{}

func (sshListCmd) Run(s *session) error {
	sys, err := s.box.System(s.ctx)
	if err != nil {
		return err
	}
	return s.sayLogins(sys.SSH, "")
}

// sayLogins prints who may come in.
func (s *session) sayLogins(l client.SSH, done string) error {
	if s.json {
		return s.printJSON(l)
	}
	if done != "" {
		s.say("%s", done)
	}
	if !l.On {
		s.say("SSH is off: no key lets anybody in.")
		return nil
	}
	s.say("the box's own key: %s", plain(l.HostKey))
	rows := [][]string{{"KEY", "KIND", "FINGERPRINT"}}
	for _, k := range l.Keys {
		rows = append(rows, []string{orDash(k.Comment), k.Kind, k.Fingerprint})
	}
	table(s.env.Stdout, rows)
	return nil
}

type sshAddCmd struct {
	Key []string `arg:"" help:"The .pub file, the line that is in it, or -."`
}

// maxKeyFile bounds what is read of a key, in bytes.
const maxKeyFile = 32 << 10

func (c *sshAddCmd) Run(s *session) error {
	line, err := c.line(s)
	if err != nil {
		return fmt.Errorf("ssh-key: %w", err)
	}
	logins, err := s.box.AddSSHKey(s.ctx, line)
	if err != nil {
		return err
	}
	return s.sayLogins(logins, "Kept.")
}

func (c *sshAddCmd) line(s *session) (string, error) {
	if len(c.Key) > 1 || strings.Contains(c.Key[0], " ") {
		return strings.Join(c.Key, " "), nil
	}
	from := s.env.Stdin
	if c.Key[0] != "-" {
		f, err := os.Open(c.Key[0])
		if err != nil {
			return "", err
		}
		defer f.Close()
		from = f
	}
	if from == nil {
		return "", errors.New("there is no standard input")
	}
	text, err := io.ReadAll(io.LimitReader(from, maxKeyFile))
	return strings.TrimSpace(string(text)), err
}

type sshRemoveCmd struct {
	Fingerprint string `arg:"" help:"SHA256:…, as \"system ssh-key list\" gives it."`
}

func (c *sshRemoveCmd) Run(s *session) error {
	logins, err := s.box.RemoveSSHKey(s.ctx, c.Fingerprint)
	if err != nil {
		return err
	}
	return s.sayLogins(logins, "Removed. Who is in stays until they leave.")
}
