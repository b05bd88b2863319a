package admin

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// description is the API's OpenAPI, as JSON and as a page for people. Both are
// made once.
type description struct{ json, html []byte }

// operation is one line of the page.
type operation struct {
	Method, Path, ID, Summary string
	Parameters                []parameter
	Body                      string // name of the request's schema, "" for none
	Answer                    string // name of the answer's schema
}

type parameter struct{ Name, In, Doc string }

// schema is one table of the page.
type schema struct {
	Name   string
	Fields []schemaField
}

type schemaField struct{ Name, Type, Doc string }

func describe(spec *huma.OpenAPI) (*description, error) {
	data, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("describe the API: %w", err)
	}
	page, err := template.ParseFS(files, "panel/layout.html", "panel/docs.html")
	if err != nil {
		return nil, fmt.Errorf("describe the API: %w", err)
	}
	var html bytes.Buffer
	err = page.ExecuteTemplate(&html, "docs", map[string]any{
		"Version": spec.Info.Version, "Operations": operations(spec), "Schemas": schemas(spec),
	})
	if err != nil {
		return nil, fmt.Errorf("describe the API: %w", err)
	}
	return &description{data, html.Bytes()}, nil
}

func (d *description) spec(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/openapi+json")
	_, _ = w.Write(d.json) // fails only if the client has gone
}

func (d *description) page(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(d.html) // fails only if the client has gone
}

func operations(spec *huma.OpenAPI) []operation {
	var list []operation
	for path, item := range spec.Paths {
		for method, op := range map[string]*huma.Operation{
			"GET": item.Get, "POST": item.Post, "PUT": item.Put, "DELETE": item.Delete,
		} {
			if op != nil {
				list = append(list, describeOperation(method, apiPrefix+path, op))
			}
		}
	}
	slices.SortFunc(list, func(a, b operation) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method)) })
	return list
}

func describeOperation(method, path string, op *huma.Operation) operation {
	o := operation{Method: method, Path: path, ID: op.OperationID, Summary: op.Summary}
	for _, p := range op.Parameters {
		o.Parameters = append(o.Parameters, parameter{p.Name, p.In, p.Description})
	}
	if op.RequestBody != nil {
		o.Body = schemaName(op.RequestBody.Content["application/json"])
	}
	if ok := op.Responses["200"]; ok != nil {
		o.Answer = schemaName(ok.Content["application/json"])
	}
	return o
}

func schemaName(m *huma.MediaType) string {
	if m == nil || m.Schema == nil {
		return ""
	}
	return typeName(m.Schema)
}

func typeName(s *huma.Schema) string {
	switch {
	case s.Ref != "":
		return s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
	case s.Items != nil:
		return "list of " + typeName(s.Items)
	case s.Type == "object":
		return "map"
	case s.Format != "":
		return s.Type + " (" + s.Format + ")"
	case len(s.Enum) > 0:
		return fmt.Sprintf("one of %v", s.Enum)
	default:
		return s.Type
	}
}

func schemas(spec *huma.OpenAPI) []schema {
	var list []schema
	for name, s := range spec.Components.Schemas.Map() {
		entry := schema{Name: name}
		for field, f := range s.Properties {
			entry.Fields = append(entry.Fields, schemaField{field, typeName(f), f.Description})
		}
		slices.SortFunc(entry.Fields, func(a, b schemaField) int { return cmp.Compare(a.Name, b.Name) })
		list = append(list, entry)
	}
	slices.SortFunc(list, func(a, b schema) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
