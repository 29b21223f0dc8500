#pragma once

#include <memory>
#include <vector>

#include "fovea/result.h"

#include "engine/image_file.h"
#include "engine/step_plan.h"

namespace fovea {

/// What a step brought back.
struct StepOutput {
  /// One for every PlannedRows with `samples`, in their order.
  std::vector<SampledToken> tokens;
  double vision_ms = 0;  ///< device time of the crops
  double text_ms = 0;    ///< device time of the rows
};

/// Runs planned steps on a device, in order. The engine's loop knows no more of the model than
/// this.
class StepRunner {
 public:
  virtual ~StepRunner() = default;

  /// How many steps may be launched before the first of them is collected: 1 where launching is
  /// running, 2 where a queue hides the host's work behind the device's.
  virtual int depth() const = 0;

  /// Enqueues a step. Page copies, crops and rows refer to memory that stays put until collect().
  /// An error means that nothing of the step will come back. A picture that there is no memory for
  /// gets a `failure` of its own.
  virtual Status launch(const StepPlan& plan) = 0;

  /// Embeddings from host memory to the device, and back: the disk's copy of an encoded picture.
  /// Waits until they are there. Errors: kInvalidArgument when they are not of this model's shape
  /// and type, kResourceExhausted, kDeviceLost.
  virtual Result<std::shared_ptr<const EncodedImage>> upload(const ImageIdentity& identity,
                                                             const HostEmbeddings& embeddings) = 0;
  virtual Result<HostEmbeddings> download(const EncodedImage& image) = 0;

  /// Waits for the oldest step launched. Fills `encoded` of pictures whose last crop it held. After
  /// the first kResourceExhausted (or std::bad_alloc) of a step it may be called for it again; with
  /// any other end the step is over.
  virtual Result<StepOutput> collect() = 0;
};

}  // namespace fovea
