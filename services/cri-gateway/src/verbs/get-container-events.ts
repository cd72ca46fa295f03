// GetContainerEvents: each change from now on, with the whole status of its pod, until the caller
// goes. A caller that does not keep up is told so and cut.

import type { GetEventsRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, StreamVerb } from '../gateway.ts';

export function getContainerEvents(gateway: Gateway): StreamVerb<GetEventsRequest, Buffer> {
  return async function* (_request, { signal, cut }) {
    gateway.feed.requirePrimed();
    const subscription = gateway.events.subscribe(cut);
    try {
      for (;;) yield await subscription.next(signal);
    } finally {
      subscription.close();
    }
  };
}
