#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "fovea/result.h"

namespace fovea {

class Ops;
class Stream;

/// A place that computes: its memory, its queues and its operations. Thread-safe.
class Device {
 public:
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  /// What `--device` calls it ("cpu", "cuda:0") and what a person would ("AMD EPYC, avx2, 2
  /// threads").
  virtual std::string name() const = 0;
  virtual std::string description() const = 0;

  /// `size_bytes` of memory aligned to 64 bytes; contents undefined. Error: kResourceExhausted.
  virtual Result<std::byte*> allocate(std::size_t size_bytes) = 0;
  virtual void deallocate(std::byte* data) noexcept = 0;
  /// Bytes that could be allocated without pushing others out; 0 when that cannot be told.
  virtual std::size_t free_memory() = 0;
  /// Whether the memory is the device's own: what is free of it waits for nobody else.
  virtual bool has_own_memory() const { return false; }

  /// Crops of pictures that give enough rows for products at full speed; more only cost memory.
  virtual int crops_per_pass() const { return 2; }

  /// Prompts about a picture that fill a step: more than one where weights are read again for each.
  virtual int prompts_per_step() const { return 1; }

  /// Steps that are worth having in a stream at once: 1 where operations are done when they return,
  /// 2 where the host has time to prepare the next step meanwhile.
  virtual int steps_in_flight() const { return 1; }

  virtual Result<std::unique_ptr<Stream>> make_stream() = 0;
  virtual Ops& ops() = 0;

 protected:
  Device() = default;
};

}  // namespace fovea
