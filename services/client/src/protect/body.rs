//! The body of an answer: the handler's own, counted to its end where that is when it is known how much was used, or the
//! document that says why not.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use octroi_proto::quota::v1::CheckItem;
use tokio::task::JoinHandle;

use super::{
    ask::check_item,
    permit::Permit,
    refusal::has_failed,
    rule::{Measure, Rule},
};

pin_project_lite::pin_project! {
    /// The body of an answer of a [`Protected`](super::Protected) service.
    #[derive(Debug)]
    pub struct Body<B> {
        #[pin]
        inner: Inner<B>,
    }
}

pin_project_lite::pin_project! {
    #[project = InnerProjection]
    #[derive(Debug)]
    enum Inner<B> {
        /// The handler's, which is no longer of interest.
        Plain { #[pin] body: B },
        /// The handler's, which says how much was used.
        Counted { #[pin] body: B, end: End },
        /// A document of ours.
        Document { text: Option<Bytes> },
    }
}

/// What is to be done when a body ends.
#[derive(Debug)]
pub(super) struct End {
    permit: Permit,
    rule: Arc<Rule>,
    /// What the head of the response says.
    used: Vec<CheckItem>,
    bytes: u64,
    /// How long it will be: whoever has that much of it reads no further.
    length: Option<u64>,
    committing: Option<JoinHandle<()>>,
    /// The last of the body, which waits until what was used is recorded.
    last: Option<Frame<Bytes>>,
    is_over: bool,
}

impl End {
    /// `length` is how long the body will be, where that is known.
    pub(super) fn new(permit: Permit, rule: Arc<Rule>, used: Vec<CheckItem>, length: Option<u64>) -> Self {
        Self {
            permit,
            rule,
            used,
            bytes: 0,
            length,
            committing: None,
            last: None,
            is_over: false,
        }
    }

    /// Records what was used, now.
    pub(super) async fn finish(mut self) {
        self.commit();
        std::future::poll_fn(|context| self.poll_committed(context)).await;
    }

    /// Records what was used, all that was asked for included.
    fn commit(&mut self) {
        let mut used = std::mem::take(&mut self.used);
        used.extend(self.measured());
        self.committing = self.permit.commit(used);
    }

    /// Records what was measured of a body that broke off. What is of one piece was not used, so it is given back.
    fn commit_measured(&mut self) {
        let mut used: Vec<CheckItem> = self.measured().collect();
        let unmeasured = self
            .rule
            .items
            .iter()
            .filter(|item| !item.measure.is_to_the_end());
        used.extend(unmeasured.map(|item| check_item(&item.metric, 0)));
        self.committing = self.permit.commit(used);
    }

    fn measured(&self) -> impl Iterator<Item = CheckItem> {
        let by_bytes = self
            .rule
            .items
            .iter()
            .filter(|item| matches!(item.measure, Measure::Bytes));
        let by_bytes = by_bytes.map(|item| check_item(&item.metric, self.bytes));
        let metered = self.permit.meter().into_iter().flat_map(|meter| meter.read());
        by_bytes.chain(metered.map(|(metric, amount)| check_item(metric, amount)))
    }

    /// Waits for the ledger, if anything is on its way there.
    fn poll_committed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(committing) = &mut self.committing else {
            return Poll::Ready(());
        };
        if let Err(error) = ready!(Pin::new(committing).poll(context)) {
            tracing::error!(error = %error, "what was used is not recorded, or what was held not freed");
        }
        self.committing = None;
        Poll::Ready(())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // Whoever reads a body need not read past its last byte, and may go away before. What was used by then was used.
        if self.permit.is_open()
            && self.rule.is_measured_to_the_end()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            self.commit_measured();
        }
    }
}

impl<B> Body<B> {
    pub(super) fn plain(body: B) -> Self {
        Self {
            inner: Inner::Plain { body },
        }
    }

    pub(super) fn counted(body: B, mut end: End) -> Self {
        // However slowly it is read.
        end.permit.renew();
        Self {
            inner: Inner::Counted { body, end },
        }
    }

    pub(super) fn empty() -> Self {
        Self {
            inner: Inner::Document { text: None },
        }
    }

    pub(super) fn document(text: impl Into<Bytes>) -> Self {
        Self {
            inner: Inner::Document {
                text: Some(text.into()),
            },
        }
    }
}

impl End {
    /// The next of the body; the last of it only once what was used is recorded.
    fn poll_frame<B: http_body::Body<Data = Bytes>>(
        &mut self,
        mut body: Pin<&mut B>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        while self.permit.is_open() {
            match ready!(body.as_mut().poll_frame(context)) {
                Some(Ok(frame)) => {
                    let is_last = body.is_end_stream();
                    if let Some(passed) = self.see(frame, is_last) {
                        return Poll::Ready(Some(Ok(passed)));
                    }
                }
                // What was sent by then is counted when this is dropped.
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    self.is_over = true;
                    self.commit();
                }
            }
        }
        ready!(self.poll_committed(context));
        match self.last.take() {
            Some(last) => Poll::Ready(Some(Ok(last))),
            None if self.is_over => Poll::Ready(None),
            // What comes after is of no interest.
            None => {
                let next = ready!(body.poll_frame(context));
                self.is_over = next.is_none();
                Poll::Ready(next)
            }
        }
    }

    /// Sees a piece of the body, and answers with it unless it is the last, which waits.
    fn see(&mut self, frame: Frame<Bytes>, is_last: bool) -> Option<Frame<Bytes>> {
        let frame = match frame.into_trailers() {
            Ok(trailers) => {
                match has_failed(&trailers) {
                    true if self.rule.is_measured_to_the_end() => self.commit_measured(),
                    true => self.committing = self.permit.release_soon(),
                    false => self.commit(),
                }
                self.last = Some(Frame::trailers(trailers));
                return None;
            }
            Err(frame) => frame,
        };
        let length = frame.data_ref().map_or(0, Bytes::len);
        self.bytes = self.bytes.saturating_add(length as u64);
        if !is_last && self.length.is_none_or(|length| self.bytes < length) {
            return Some(frame);
        }
        self.last = Some(frame);
        self.commit();
        None
    }
}

impl<B: http_body::Body<Data = Bytes>> http_body::Body for Body<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().inner.project() {
            InnerProjection::Plain { body } => body.poll_frame(context),
            InnerProjection::Counted { body, end } => end.poll_frame(body, context),
            InnerProjection::Document { text } => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Plain { body } => body.is_end_stream(),
            Inner::Document { text } => text.is_none(),
            Inner::Counted { body, end } => {
                !end.permit.is_open()
                    && end.committing.is_none()
                    && end.last.is_none()
                    && body.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Plain { body } | Inner::Counted { body, .. } => body.size_hint(),
            Inner::Document { text } => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
        }
    }
}
