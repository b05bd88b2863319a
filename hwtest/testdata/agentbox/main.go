// Program agentbox stands in for the daemon of an emulated box and makes an agent
// of it: it enrols with the other box, whose token it knows, and runs the agent.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"time"
)

const (
	box   = "http://10.9.0.1"
	token = "a-token-that-only-this-test-knows"
	data  = "/data/cistern"
)

func main() {
	for ; ; time.Sleep(2 * time.Second) {
		print, err := fingerprint()
		if err == nil {
			err = run("enrol", "--box", box+":3142", "--key", print, "--name", "second", "--data", data)
		}
		if err == nil {
			break
		}
		fmt.Fprintln(os.Stderr, "agentbox:", err)
	}
	if err := run("run", "--data", data, "--listen", ":3142", "--verbose"); err != nil {
		fmt.Fprintln(os.Stderr, "agentbox:", err)
		os.Exit(1)
	}
}

// fingerprint asks the other box for that of its key.
func fingerprint() (string, error) {
	req, err := http.NewRequest(http.MethodGet, box+"/api/v1/enrolment", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var answer struct {
		Fingerprint string `json:"fingerprint"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return "", fmt.Errorf("%s: %w", resp.Status, err)
	}
	return answer.Fingerprint, nil
}

func run(args ...string) error {
	cmd := exec.Command("/bin/cistern-agent", args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}
