package main

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	method      = "/cerbos.svc.v1.CerbosService/CheckResources"
	effectAllow = 1 // cerbos.effect.v1.EFFECT_ALLOW
)

// bytesCodec passes messages as they are on the wire.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(value any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*value.(*[]byte))}, nil
}

func (bytesCodec) Unmarshal(data mem.BufferSlice, value any) error {
	*value.(*[]byte) = data.Materialize()
	return nil
}

type decision struct {
	allowed bool
	output  string
}

func (a *adapter) ask(ctx context.Context, request []byte) (decision, error) {
	var response []byte
	if err := a.cerbos.Invoke(ctx, method, &request, &response); err != nil {
		return decision{}, err
	}
	return read(response)
}

// question writes a CheckResourcesRequest (cerbos/request/v1/request.proto).
func question(caller *claims, id, action, channel string) []byte {
	principal := text(nil, 1, caller.Subject)
	for _, role := range caller.Roles {
		principal = text(principal, 3, role)
	}
	principal = attribute(principal, "region", caller.Region)
	principal = attribute(principal, "department", caller.Department)

	resource := text(nil, 1, "expense")
	resource = text(resource, 3, id)
	resource = attribute(resource, "ownerId", caller.Subject)
	resource = attribute(resource, "region", caller.Region)
	resource = attribute(resource, "channel", channel)
	resource = attribute(resource, "status", "OPEN")

	entry := text(nil, 1, action)
	entry = message(entry, 2, resource)
	request := message(nil, 3, principal)
	return message(request, 4, entry)
}

// attribute writes an entry of an `attr` map (field 4 of principal and of resource): a name and a string value
// (google.protobuf.Value, field 3).
func attribute(to []byte, name, value string) []byte {
	entry := text(nil, 1, name)
	entry = message(entry, 2, text(nil, 3, value))
	return message(to, 4, entry)
}

func text(to []byte, number protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(to, number, protowire.BytesType), value)
}

func message(to []byte, number protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(to, number, protowire.BytesType), content)
}

// read takes the effect of the one action, and the one output, from a CheckResourcesResponse.
func read(response []byte) (found decision, err error) {
	err = fields(response, 2, func(result []byte) error { // results
		return errors.Join(
			fields(result, 2, func(action []byte) error { // actions, a map: name 1, effect 2
				effect, err := number(action, 2)
				found.allowed = effect == effectAllow
				return err
			}),
			fields(result, 5, func(output []byte) error { // outputs
				return fields(output, 2, func(value []byte) error { // google.protobuf.Value
					return fields(value, 3, func(text []byte) error {
						found.output = string(text)
						return nil
					})
				})
			}))
	})
	return found, err
}

// fields calls visit with each length-delimited field of a number.
func fields(data []byte, wanted protowire.Number, visit func([]byte) error) error {
	for len(data) > 0 {
		number, kind, size := protowire.ConsumeTag(data)
		if size < 0 {
			return protowire.ParseError(size)
		}
		data = data[size:]
		if number == wanted && kind == protowire.BytesType {
			content, size := protowire.ConsumeBytes(data)
			if size < 0 {
				return protowire.ParseError(size)
			}
			if err := visit(content); err != nil {
				return err
			}
		}
		size = protowire.ConsumeFieldValue(number, kind, data)
		if size < 0 {
			return protowire.ParseError(size)
		}
		data = data[size:]
	}
	return nil
}

// number finds the varint field of a number.
func number(data []byte, wanted protowire.Number) (uint64, error) {
	for len(data) > 0 {
		number, kind, size := protowire.ConsumeTag(data)
		if size < 0 {
			return 0, protowire.ParseError(size)
		}
		data = data[size:]
		if number == wanted && kind == protowire.VarintType {
			value, size := protowire.ConsumeVarint(data)
			return value, protowire.ParseError(min(size, 0))
		}
		size = protowire.ConsumeFieldValue(number, kind, data)
		if size < 0 {
			return 0, protowire.ParseError(size)
		}
		data = data[size:]
	}
	return 0, fmt.Errorf("the answer of Cerbos has no effect")
}
