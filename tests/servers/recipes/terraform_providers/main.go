// A stand-in for Google's providers of Terraform: it knows the resources and arguments of a schema in the form of
// `terraform providers schema -json`, so that `terraform validate`, and `terraform test` with mock_provider, run
// without them. It manages nothing.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"log"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tfprotov5/tf5server"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

//go:embed schema.json
var text []byte

type attribute struct {
	Type                         json.RawMessage
	Required, Optional, Computed bool
}

type nestedBlock struct {
	Block   block
	Nesting string `json:"nesting_mode"`
	Min     int64  `json:"min_items"`
	Max     int64  `json:"max_items"`
}

type block struct {
	Attributes map[string]attribute
	BlockTypes map[string]nestedBlock `json:"block_types"`
}

type schema struct{ Block block }

type document struct {
	Name      string
	Provider  schema
	Resources map[string]schema `json:"resource_schemas"`
	Data      map[string]schema `json:"data_source_schemas"`
}

var nestings = map[string]tfprotov5.SchemaNestedBlockNestingMode{
	"list":   tfprotov5.SchemaNestedBlockNestingModeList,
	"set":    tfprotov5.SchemaNestedBlockNestingModeSet,
	"single": tfprotov5.SchemaNestedBlockNestingModeSingle,
}

func blockOf(given block) *tfprotov5.SchemaBlock {
	made := &tfprotov5.SchemaBlock{}
	for name, one := range given.Attributes {
		kind, err := tftypes.ParseJSONType(one.Type)
		if err != nil {
			log.Fatal(name, err)
		}
		made.Attributes = append(made.Attributes, &tfprotov5.SchemaAttribute{
			Name: name, Type: kind, Required: one.Required, Optional: one.Optional, Computed: one.Computed,
		})
	}
	for name, one := range given.BlockTypes {
		made.BlockTypes = append(made.BlockTypes, &tfprotov5.SchemaNestedBlock{
			TypeName: name, Block: blockOf(one.Block), Nesting: nestings[one.Nesting], MinItems: one.Min, MaxItems: one.Max,
		})
	}
	return made
}

func schemasOf(given map[string]schema) map[string]*tfprotov5.Schema {
	made := map[string]*tfprotov5.Schema{}
	for name, one := range given {
		made[name] = &tfprotov5.Schema{Block: blockOf(one.Block)}
	}
	return made
}

type server struct {
	tfprotov5.ProviderServer // all else is never called: mocks answer for it
	schemas                  *tfprotov5.GetProviderSchemaResponse
}

func (s server) GetMetadata(context.Context, *tfprotov5.GetMetadataRequest) (*tfprotov5.GetMetadataResponse, error) {
	return &tfprotov5.GetMetadataResponse{}, nil
}

func (s server) GetProviderSchema(context.Context, *tfprotov5.GetProviderSchemaRequest) (*tfprotov5.GetProviderSchemaResponse, error) {
	return s.schemas, nil
}

func (s server) PrepareProviderConfig(_ context.Context, asked *tfprotov5.PrepareProviderConfigRequest) (*tfprotov5.PrepareProviderConfigResponse, error) {
	return &tfprotov5.PrepareProviderConfigResponse{PreparedConfig: asked.Config}, nil
}

func (s server) ValidateResourceTypeConfig(context.Context, *tfprotov5.ValidateResourceTypeConfigRequest) (*tfprotov5.ValidateResourceTypeConfigResponse, error) {
	return &tfprotov5.ValidateResourceTypeConfigResponse{}, nil
}

func (s server) ValidateDataSourceConfig(context.Context, *tfprotov5.ValidateDataSourceConfigRequest) (*tfprotov5.ValidateDataSourceConfigResponse, error) {
	return &tfprotov5.ValidateDataSourceConfigResponse{}, nil
}

func (s server) ConfigureProvider(context.Context, *tfprotov5.ConfigureProviderRequest) (*tfprotov5.ConfigureProviderResponse, error) {
	return nil, errors.New("a stand-in that knows schemas alone: use mock_provider, or the real provider")
}

func (s server) StopProvider(context.Context, *tfprotov5.StopProviderRequest) (*tfprotov5.StopProviderResponse, error) {
	return &tfprotov5.StopProviderResponse{}, nil
}

func main() {
	var given document
	if err := json.Unmarshal(text, &given); err != nil {
		log.Fatal(err)
	}
	served := server{schemas: &tfprotov5.GetProviderSchemaResponse{
		Provider:           &tfprotov5.Schema{Block: blockOf(given.Provider.Block)},
		ResourceSchemas:    schemasOf(given.Resources),
		DataSourceSchemas:  schemasOf(given.Data),
		ServerCapabilities: &tfprotov5.ServerCapabilities{GetProviderSchemaOptional: true},
	}}
	if err := tf5server.Serve(given.Name, func() tfprotov5.ProviderServer { return served }); err != nil {
		log.Fatal(err)
	}
}
