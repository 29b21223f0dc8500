// Which crops go into a step, and which pictures come too late for it.

#include <algorithm>

#include "base/guard.h"
#include "engine/scheduler.h"

namespace fovea {

void Scheduler::add_picture(std::shared_ptr<PictureJob> picture) {
  const int num_crops = picture->crops.num_crops() - picture->crops_planned;
  pictures_.push_back(std::move(picture));
  num_queued_crops_ += num_crops;
}

void Scheduler::drop_picture(const PictureJob& picture) noexcept {
  const auto at = std::find_if(pictures_.begin(), pictures_.end(),
                               [&](const auto& queued) { return queued.get() == &picture; });
  if (at == pictures_.end()) return;
  num_queued_crops_ -= picture.crops.num_crops() - picture.crops_planned;
  pictures_.erase(at);
}

// The vision encoder is the dearest part of many an answer: no crop for one that comes too late.
// When that is all of them, the one with the most time left is tried all the same.
void Scheduler::give_up_pictures(double now_ms, const StepCosts& costs) {
  const double ends_ms = now_ms + costs.encoded_service.safe_ms();
  const auto is_hopeless = [&](const std::shared_ptr<PictureJob>& picture) {
    return picture->crops_planned == 0 && ends_ms > picture->deadline_ms;
  };
  const PictureJob* last_hope = nullptr;
  if (std::all_of(pictures_.begin(), pictures_.end(), is_hopeless)) {
    const auto latest = std::max_element(
        pictures_.begin(), pictures_.end(),
        [](const auto& a, const auto& b) { return a->deadline_ms < b->deadline_ms; });
    if (latest != pictures_.end()) last_hope = latest->get();
  }
  for (auto picture = pictures_.begin(); picture != pictures_.end();) {
    if (!is_hopeless(*picture) || picture->get() == last_hope) {
      ++picture;
      continue;
    }
    hopeless_pictures_.push_back(*picture);
    num_queued_crops_ -= (*picture)->crops.num_crops();
    picture = pictures_.erase(picture);
  }
}

void Scheduler::plan_crops(StepPlan& plan, StepBudget& budget, double now_ms, bool more_pictures) {
  if (pictures_.empty()) return;
  // A batch that is not full waits for others that are on their way, but not for long, and not when
  // the device would be idle.
  if (more_pictures && num_queued_crops_ < options_.max_crops && !plan.rows.empty()) {
    const double due_ms = pictures_.front()->queued_ms + options_.vision_wait_ms;
    if (now_ms < due_ms) {
      next_wakeup_ms_ = due_ms;
      return;
    }
  }
  const double crop_ms = budget.costs->crop_ms;
  int room = options_.max_crops;
  while (room > 0 && !pictures_.empty() && budget.can_pay(crop_ms)) {
    PictureJob& picture = *pictures_.front();
    if (picture.crops_planned == 0) picture.started_ms = now_ms;
    int count = std::min(room, picture.crops.num_crops() - picture.crops_planned);
    if (budget.answers_run && crop_ms > 0) {
      const int affordable = static_cast<int>(budget.stall_ms / crop_ms);
      count = std::clamp(count, 1, std::max(1, affordable));
    }
    PlannedCrops crops{pictures_.front(), picture.crops_planned, count, false};
    picture.crops_planned += count;
    crops.is_last = picture.crops_planned == picture.crops.num_crops();
    if (crops.is_last) pictures_.pop_front();
    plan.crops.push_back(std::move(crops));
    plan.num_crops += count;
    num_queued_crops_ -= count;
    room -= count;
    budget.pay(count * crop_ms);
  }
}

}  // namespace fovea
