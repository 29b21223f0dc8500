#include "engine/picture_pipeline.h"

#include <limits>

#include "base/clock.h"
#include "base/try.h"

namespace fovea {

PicturePipeline::PicturePipeline(StepRunner& runner, Scheduler& scheduler,
                                 const PrefixCache& prefixes, Inbox& inbox, Metrics& metrics,
                                 Options options, Events events)
    : runner_(runner),
      scheduler_(scheduler),
      prefixes_(prefixes),
      inbox_(inbox),
      metrics_(metrics),
      options_(std::move(options)),
      events_(std::move(events)),
      images_(options_.cache_bytes),
      identifier_(options_.limits, options_.crops),
      pool_(options_.num_threads),
      workers_(std::make_unique<TaskQueue>(kNumWorkers)) {}

PicturePipeline::~PicturePipeline() = default;

// `work` on a picture worker, then `then` on the engine thread. The letter is written beforehand:
// once this has returned, `then` will run, whatever happens on the way.
template <class T>
void PicturePipeline::on_worker(std::function<Result<T>()> work,
                                std::function<void(Result<T>)> then) {
  auto result = std::make_shared<std::optional<Result<T>>>();
  auto letter = std::make_shared<Inbox::Letter>(
      [result, then = std::move(then)] { then(std::move(**result)); });
  workers_->post([this, result, work = std::move(work), letter = std::move(letter)]() mutable {
    result->emplace(guarded<T>(work));
    inbox_.send(std::move(letter));
  });
}

void PicturePipeline::add(std::uint64_t id, double place_ms, double deadline_ms,
                          const Request& request, std::int32_t adapter) {
  constexpr double kNone = std::numeric_limits<double>::infinity();
  clients_.emplace(id, Client{.picture = *request.picture,
                              .apply_exif = request.apply_exif,
                              .adapter = adapter,
                              .place_ms = place_ms,
                              .deadline_ms = deadline_ms > 0 ? deadline_ms : kNone,
                              .result = {},
                              .pixels = nullptr});
  unprepared_.emplace(place_ms, id);
}

// Pictures are decoded a little ahead of the requests that run, and no further.
void PicturePipeline::start(StepCosts& costs) noexcept {
  while (num_in_preparation_ < options_.max_in_preparation && !unprepared_.empty()) {
    const std::uint64_t id = unprepared_.begin()->second;
    unprepared_.erase(unprepared_.begin());
    Client& client = clients_.at(id);
    const double begin_ms = now_ms();
    if (!unprepared_.empty() && begin_ms + costs.pictured_service.safe_ms() > client.deadline_ms) {
      costs.pictured_service.doubt();
      events_.failed(id, too_late());
      continue;
    }
    client.result.since_ms = begin_ms;
    client.in_preparation = true;
    ++num_in_preparation_;
    attempt(id, [&] { identify(id, client); });
  }
}

// What cannot be done for a request, for want of memory, ends that request.
template <class Body>
void PicturePipeline::attempt(std::uint64_t id, Body&& body) noexcept {
  if (const Status done = guarded(body); !done.ok()) events_.failed(id, done.error());
}

// The same for a picture in work, and all who wait for it.
template <class Body>
void PicturePipeline::attempt_for(const ImageIdentity& identity, Body&& body) noexcept {
  const Status done = guarded(body);
  if (!done.ok() && in_work_.contains(identity)) fail_waiting(identity, done.error());
}

void PicturePipeline::identify(std::uint64_t id, Client& client) {
  on_worker<IdentifiedPicture>(
      [this, picture = client.picture, exif = client.apply_exif] {
        return identifier_.identify(picture, exif);
      },
      [this, id](Result<IdentifiedPicture> result) { identified(id, std::move(result)); });
}

void PicturePipeline::identified(std::uint64_t id, Result<IdentifiedPicture> result) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;  // cancelled meanwhile
  if (!result.ok()) return events_.failed(id, result.error());
  Client& client = found->second;
  client.result.identity = result->identity;
  client.result.picture_ms += result->worked_ms;
  client.pixels = std::move(result->pixels);
  attempt(id, [&] { find_or_encode(id, client); });
}

void PicturePipeline::find_again(std::uint64_t id) noexcept {
  Client& client = clients_.at(id);
  attempt(id, [&] { find_or_encode(id, client); });
}

// The picture's embeddings, its keys and values, somebody else's work on it, or our own: the first
// of these that there is.
void PicturePipeline::find_or_encode(std::uint64_t id, Client& client) {
  const ImageIdentity identity = client.result.identity;
  client.result.image = images_.find(identity);
  if (client.result.image != nullptr) {
    metrics_.image_cache_hits.add();
    client.result.was_cached = true;
    return finish(id, client);
  }
  const PrefixKey key = PrefixKey::of_picture(options_.bos, identity, options_.image_tokens);
  if (prefixes_.peek(client.adapter, {&key, 1}) == key.span) {
    client.result.was_cached = true;
    return finish(id, client);
  }
  metrics_.image_cache_misses.add();
  const auto [entry, is_new] = in_work_.try_emplace(identity);
  if (const Status waits = guarded([&] { entry->second.waiting.push_back(id); }); !waits.ok()) {
    if (is_new) in_work_.erase(entry);
    return events_.failed(id, waits.error());
  }
  client.waits = true;
  const std::shared_ptr<const Image> pixels = std::move(client.pixels);
  if (!is_new) return update_deadline(entry->second);
  attempt_for(identity, [&] {
    load(std::make_shared<const Source>(
        Source{identity, pixels, client.picture, client.apply_exif}));
  });
}

// The embeddings from the disk; if they are not there, the crops to make them of.
void PicturePipeline::load(std::shared_ptr<const Source> source) {
  if (!options_.store) return cut(source);
  using Stored = std::optional<HostEmbeddings>;
  on_worker<Stored>(
      [this, source]() -> Result<Stored> { return options_.store->load(source->identity); },
      [this, source](Result<Stored> stored) {
        attempt_for(source->identity, [&] {
          if (stored.ok() && *stored) return loaded(source, **stored);
          cut(source);
        });
      });
}

void PicturePipeline::loaded(const std::shared_ptr<const Source>& source,
                             const HostEmbeddings& embeddings) {
  const auto found = in_work_.find(source->identity);
  if (found == in_work_.end()) return;
  const Result<std::shared_ptr<const EncodedImage>> image =
      runner_.upload(source->identity, embeddings);
  if (!image.ok()) return cut(source);
  for (const std::uint64_t id : found->second.waiting) clients_.at(id).result.was_cached = true;
  image_is_ready(*image, 0);
}

void PicturePipeline::cut(const std::shared_ptr<const Source>& source) {
  const auto worked_ms = std::make_shared<double>(0);
  on_worker<Crops>(
      [this, source, worked_ms]() -> Result<Crops> {
        const double started_ms = now_ms();
        std::shared_ptr<const Image> pixels = source->pixels;
        if (pixels == nullptr) {
          FOVEA_TRY(pixels, identifier_.pixels(source->picture, source->apply_exif));
        }
        Result<Crops> crops = make_crops(*pixels, options_.crops, pool_);
        *worked_ms = now_ms() - started_ms;
        return crops;
      },
      [this, identity = source->identity, worked_ms](Result<Crops> crops) {
        attempt_for(identity, [&] { cropped(identity, std::move(crops), *worked_ms); });
      });
}

void PicturePipeline::cropped(const ImageIdentity& identity, Result<Crops> crops,
                              double worked_ms) {
  const auto found = in_work_.find(identity);
  if (found == in_work_.end()) return;
  if (!crops.ok()) return fail_waiting(identity, crops.error());
  InWork& picture = found->second;
  if (picture.waiting.empty()) {  // all of them were cancelled
    in_work_.erase(found);
    return;
  }
  for (const std::uint64_t id : picture.waiting) clients_.at(id).result.picture_ms += worked_ms;
  picture.job = std::make_shared<PictureJob>();
  picture.job->identity = identity;
  picture.job->crops = std::move(crops).value();
  picture.job->queued_ms = picture.cut_ms = now_ms();
  update_deadline(picture);
  scheduler_.add_picture(picture.job);
}

void PicturePipeline::update_deadline(const InWork& picture) {
  if (picture.job == nullptr) return;
  picture.job->deadline_ms = 0;
  for (const std::uint64_t id : picture.waiting) {
    picture.job->deadline_ms = std::max(picture.job->deadline_ms, clients_.at(id).deadline_ms);
  }
}

void PicturePipeline::give_up(const PictureJob& picture) noexcept {
  const auto found = in_work_.find(picture.identity);
  if (found != in_work_.end() && found->second.job.get() == &picture) {
    fail_waiting(picture.identity, too_late());
  }
}

void PicturePipeline::encoded(const StepPlan& plan, double done_ms) noexcept {
  for (const PlannedCrops& crops : plan.crops) {
    const auto found = in_work_.find(crops.picture->identity);
    if (found == in_work_.end() || found->second.job != crops.picture) continue;
    if (crops.picture->failure) {
      scheduler_.drop_picture(*crops.picture);
      fail_waiting(crops.picture->identity, *crops.picture->failure);
      continue;
    }
    if (!crops.is_last) continue;
    image_is_ready(crops.picture->encoded, done_ms);
    metrics_.image_encodes.add();
    // A picture that cannot be stored costs time later, not the answer.
    if (options_.store) (void)guarded([&] { store(crops.picture->encoded); });
  }
}

void PicturePipeline::encoding_failed(const StepPlan& plan, const Error& failure) noexcept {
  for (const PlannedCrops& crops : plan.crops) {
    const ImageIdentity identity = crops.picture->identity;
    const auto found = in_work_.find(identity);
    if (found == in_work_.end() || found->second.job != crops.picture) continue;
    scheduler_.drop_picture(*crops.picture);
    fail_waiting(identity, failure);
  }
}

void PicturePipeline::store(const std::shared_ptr<const EncodedImage>& image) {
  Result<HostEmbeddings> copy = runner_.download(*image);
  if (!copy.ok()) return;
  const auto embeddings = std::make_shared<const HostEmbeddings>(std::move(copy).value());
  workers_->post([this, identity = image->identity, embeddings] {
    // A folder that cannot be written costs time later, not the answer.
    (void)guarded([&] { return options_.store->save(identity, *embeddings); });
  });
}

// Everybody who waits for the picture goes on. `done_ms` is 0 when it was not encoded just now.
void PicturePipeline::image_is_ready(const std::shared_ptr<const EncodedImage>& image,
                                     double done_ms) noexcept {
  const auto found = in_work_.find(image->identity);
  const InWork picture = std::move(found->second);
  in_work_.erase(found);
  (void)guarded([&] { images_.insert(image); });  // what there is no room for is not kept
  for (const std::uint64_t id : picture.waiting) {
    Client& client = clients_.at(id);
    client.waits = false;
    client.result.image = image;
    if (done_ms > 0) {
      client.result.vision_ms = done_ms - picture.cut_ms;
      client.result.encoding_since_ms = picture.job->started_ms;
    }
    attempt(id, [&] { finish(id, client); });
  }
}

void PicturePipeline::fail_waiting(const ImageIdentity& identity, const Error& failure) noexcept {
  const auto found = in_work_.find(identity);
  const std::vector<std::uint64_t> waiting = std::move(found->second.waiting);
  in_work_.erase(found);
  for (const std::uint64_t id : waiting) {
    clients_.at(id).waits = false;
    events_.failed(id, failure);
  }
}

void PicturePipeline::finish(std::uint64_t id, Client& client) {
  client.pixels.reset();
  ReadyPicture result = client.result;
  client.result.image.reset();  // the sequence has it from here on
  events_.ready(id, std::move(result));
}

void PicturePipeline::admitted(std::uint64_t id) noexcept {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;
  if (std::exchange(found->second.in_preparation, false)) --num_in_preparation_;
}

void PicturePipeline::remove(std::uint64_t id) noexcept {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;
  const Client& client = found->second;
  unprepared_.erase({client.place_ms, id});
  if (client.in_preparation) --num_in_preparation_;
  if (client.waits) {
    const auto entry = in_work_.find(client.result.identity);
    std::erase(entry->second.waiting, id);
    if (!entry->second.waiting.empty()) {
      update_deadline(entry->second);
    } else if (entry->second.job != nullptr) {
      scheduler_.drop_picture(*entry->second.job);
      in_work_.erase(entry);
    }
  }
  clients_.erase(found);
}

}  // namespace fovea
